// Asks the api-server: once, or again and again for as long as somebody looks.

const parameters = new URLSearchParams(location.search);

// Which training this page is about, as the back end takes it: one of a task, or one of a connection.
export const ref = Object.fromEntries(
  ["dag_id", "run_id", "task_id", "map_index", "conn_id", "job_id"]
    .filter((name) => parameters.has(name))
    .map((name) => [name, parameters.get(name)]),
);

export const chosen = parameters.getAll("ti");

// To ask again would not help: nobody is logged in, or may not see this, or has asked for nothing.
export class Refused extends Error {}

// Milliseconds for one request, and seconds until a look that failed is repeated.
const PATIENCE = 30_000;
const AGAIN = 5;

// `path` is relative to the page, so that Airflow may have a base path.
export async function ask(path, query = {}, options = {}) {
  const pairs = Object.entries(query).flatMap(([name, value]) => [value].flat().map((one) => [name, one]));
  const reply = await fetch(`api/${path}?${new URLSearchParams(pairs)}`, {
    headers: { "X-Requested-By": "training" },
    signal: AbortSignal.timeout(PATIENCE),
    ...options,
  });
  if (reply.ok) return reply.json();
  const said = await reply.json().catch(() => ({}));
  if (reply.status === 401) throw new Refused("You are logged out: log in to Airflow, and open this page again.");
  const detail = typeof said.detail === "string" ? said.detail : `Airflow answered with ${reply.status}.`;
  throw [403, 422].includes(reply.status) ? new Refused(detail) : new Error(detail);
}

// Calls `look` now, and again after the seconds that it returns, but not while the tab is hidden; null ends it.
// Returns what has it look at once.
export function keepLooking(look) {
  let timer;
  let looking = false;
  let atOnce = false;
  let over = false;
  async function next() {
    clearTimeout(timer);
    atOnce = looking;
    if (looking || over || document.hidden) return;
    looking = true;
    let seconds = AGAIN;
    try {
      seconds = await look();
    } catch (error) {
      reportError(error);
    }
    looking = false;
    if (atOnce) next();
    else if (seconds === null) over = true;
    else timer = setTimeout(next, seconds * 1000);
  }
  document.addEventListener("visibilitychange", next);
  next();
  return next;
}
