// The end of a job's log with search, updated while the job runs.

import { html, nothing } from "./vendor/lit-html.js";
import { ask, ref } from "./api.js";
import { number, time } from "./format.js";
import { unreachable } from "./parts.js";

// Beyond the maximum, old lines are removed many at a time, since each removal redraws all lines.
const MAX_LINES = 5000;
const KEPT_LINES = 4000;

export function jobLog(draw) {
  const empty = { records: [], next: 0, tail: "", skipped: false, ended: false, service: null, error: null };
  let known = { ...empty };
  let search = "";
  let follows = true;

  async function load() {
    try {
      const reply = await ask("log", { ...ref, after: Math.max(known.next - 1, 0), tail: known.tail });
      const records = reply.reset ? reply.records : [...known.records, ...reply.records];
      known = {
        ...reply,
        records: records.length > MAX_LINES ? records.slice(-KEPT_LINES) : records,
        skipped: (reply.reset ? reply.skipped : known.skipped || reply.skipped) || records.length > MAX_LINES,
        error: null,
      };
    } catch (error) {
      known.error = error;
    }
  }

  const found = () => {
    const wanted = search.toLowerCase();
    return wanted ? known.records.filter(({ line }) => line.toLowerCase().includes(wanted)) : known.records;
  };

  const count = (lines) => {
    if (!search) return `${number(lines.length)} lines${known.skipped ? ", older ones omitted" : ""}`;
    return `${number(lines.length)} of ${number(known.records.length)} lines${known.skipped ? ", older ones omitted" : ""}`;
  };

  function view(url) {
    const lines = found();
    return html`
      <div class="bar">
        <label>Search <input type="search" .value=${search} @input=${(event) => { search = event.target.value; draw(); }} /></label>
        <label><input type="checkbox" .checked=${follows} @change=${(event) => { follows = event.target.checked; draw(); }} /> Follow</label>
        <span class="weak" role=${search ? "status" : nothing}>${count(lines)}</span>
        <span class="end">${url && known.skipped ? html`<a href=${url} target="_top">Full log in Airflow</a>` : nothing}</span>
      </div>
      ${unreachable(known.service)} ${known.error ? html`<p class="notice">${known.error.message}</p>` : nothing}
      <ol class="log" id="log" tabindex="0" aria-label="Log">
        ${lines.map((record) => html`<li><time datetime=${record.time ?? ""}>${time(record.time)}</time><span>${record.line}</span></li>`)}
      </ol>
    `;
  }

  // Called after each draw.
  function follow() {
    const list = document.getElementById("log");
    if (list && follows) list.scrollTop = list.scrollHeight;
  }

  return {
    load,
    view,
    follow,
    forget: () => { known = { ...empty }; },
    get ended() { return known.ended; },
  };
}
