// Requests to the api-server: single ones, and polling while the page is visible.

const parameters = new URLSearchParams(location.search);

// The reference to the job that this page shows: by its task, or by a connection and its id.
export const ref = Object.fromEntries(
  ["dag_id", "run_id", "task_id", "map_index", "conn_id", "job_id"]
    .filter((name) => parameters.has(name))
    .map((name) => [name, parameters.get(name)]),
);

export const selected = parameters.getAll("ti");

// Repeating the request would not help: the user is logged out or lacks a permission, or the request is invalid.
export class Refused extends Error {}

// Milliseconds for one request, and seconds until a failed poll is repeated.
const TIMEOUT = 30_000;
const RETRY = 5;

// `path` is relative to the page, so that Airflow may have a base path.
export async function ask(path, query = {}, options = {}) {
  const pairs = Object.entries(query).flatMap(([name, value]) => [value].flat().map((one) => [name, one]));
  const reply = await fetch(`api/${path}?${new URLSearchParams(pairs)}`, {
    headers: { "X-Requested-By": "training" },
    signal: AbortSignal.timeout(TIMEOUT),
    ...options,
  });
  if (reply.ok) return reply.json();
  const body = await reply.json().catch(() => ({}));
  if (reply.status === 401) throw new Refused("You are logged out. Log in to Airflow and reload this page.");
  const detail = typeof body.detail === "string" ? body.detail : `Airflow answered ${reply.status}.`;
  throw [403, 422].includes(reply.status) ? new Refused(detail) : new Error(detail);
}

// Calls `load` now, and again after the number of seconds that it returns, but not while the tab is hidden; null stops
// polling. Returns a function that polls at once.
export function poll(load) {
  let timer;
  let loading = false;
  let pending = false;
  let stopped = false;
  async function next() {
    clearTimeout(timer);
    pending = loading;
    if (loading || stopped || document.hidden) return;
    loading = true;
    let seconds = RETRY;
    try {
      seconds = await load();
    } catch (error) {
      reportError(error);
    }
    loading = false;
    if (pending) next();
    else if (seconds === null) stopped = true;
    else timer = setTimeout(next, seconds * 1000);
  }
  document.addEventListener("visibilitychange", next);
  next();
  return next;
}
