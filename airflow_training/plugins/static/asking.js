// Asks the api-server: once, or again and again for as long as somebody looks.

const parameters = new URLSearchParams(location.search);

// Which training this page is about, as the back end takes it: one of a task, or one of a connection.
export const ref = Object.fromEntries(
  ["dag_id", "run_id", "task_id", "map_index", "conn_id", "job_id"]
    .filter((name) => parameters.has(name))
    .map((name) => [name, parameters.get(name)]),
);

export const chosen = parameters.getAll("ti");

export class Refused extends Error {}

// `path` is relative to the page, so that Airflow may have a base path.
export async function ask(path, query = {}, options = {}) {
  const pairs = Object.entries(query).flatMap(([name, value]) => [value].flat().map((one) => [name, one]));
  const reply = await fetch(`api/${path}?${new URLSearchParams(pairs)}`, {
    headers: { "X-Requested-By": "training" },
    ...options,
  });
  if (reply.ok) return reply.json();
  const said = await reply.json().catch(() => ({}));
  const detail = typeof said.detail === "string" ? said.detail : `Airflow answered with ${reply.status}.`;
  throw reply.status === 401 ? new Refused("You are logged out: log in to Airflow, and open this page again.")
    : new (reply.status < 500 ? Refused : Error)(detail);
}

// Calls `look` now and after each `seconds(…)` that it returns, but not while the tab is hidden; null ends it.
export function keepLooking(look) {
  let timer;
  let looking = false;
  let over = false;
  const next = async () => {
    clearTimeout(timer);
    if (looking || over || document.hidden) return;
    looking = true;
    const seconds = await look();
    looking = false;
    over = seconds === null;
    if (!over) timer = setTimeout(next, seconds * 1000);
  };
  document.addEventListener("visibilitychange", next);
  return next();
}
