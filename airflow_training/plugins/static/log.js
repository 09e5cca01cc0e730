// The end of a job's log, with search, which goes on while the job writes.

import { html, nothing } from "./vendor/lit-html.js";
import { ask, ref } from "./asking.js";
import { number, time } from "./format.js";
import { silence } from "./parts.js";

// Of more than that the first ones are let go, many at a time: with each that goes, all lines are drawn anew.
const MOST_LINES = 5000;
const KEPT_LINES = 4000;

export function jobLog(draw) {
  const empty = { records: [], next: 0, tail: "", skipped: false, ended: false, service: null, error: null };
  let known = { ...empty };
  let sought = "";
  let follows = true;

  async function look() {
    try {
      const reply = await ask("log", { ...ref, after: Math.max(known.next - 1, 0), tail: known.tail });
      const records = reply.reset ? reply.records : [...known.records, ...reply.records];
      known = {
        ...reply,
        records: records.length > MOST_LINES ? records.slice(-KEPT_LINES) : records,
        skipped: (reply.reset ? reply.skipped : known.skipped || reply.skipped) || records.length > MOST_LINES,
        error: null,
      };
    } catch (error) {
      known.error = error;
    }
  }

  const found = () => {
    const wanted = sought.toLowerCase();
    return wanted ? known.records.filter(({ line }) => line.toLowerCase().includes(wanted)) : known.records;
  };

  const count = (lines) => {
    if (!sought) return `${number(lines.length)} lines${known.skipped ? ", the last ones" : ""}`;
    return `${number(lines.length)} of ${number(known.records.length)} lines${known.skipped ? ", the last ones" : ""}`;
  };

  function view(address) {
    const lines = found();
    return html`
      <div class="bar">
        <label>Search <input type="search" .value=${sought} @input=${(event) => { sought = event.target.value; draw(); }} /></label>
        <label><input type="checkbox" .checked=${follows} @change=${(event) => { follows = event.target.checked; draw(); }} /> Follow</label>
        <span class="weak" role=${sought ? "status" : nothing}>${count(lines)}</span>
        <span class="end">${address && known.skipped ? html`<a href=${address} target="_top">All of it in Airflow</a>` : nothing}</span>
      </div>
      ${silence(known.service)} ${known.error ? html`<p class="notice">${known.error.message}</p>` : nothing}
      <ol class="log" id="log" tabindex="0" aria-label="Log">
        ${lines.map((record) => html`<li><time datetime=${record.time ?? ""}>${time(record.time)}</time><span>${record.line}</span></li>`)}
      </ol>
    `;
  }

  // Called when it has been drawn.
  function follow() {
    const list = document.getElementById("log");
    if (list && follows) list.scrollTop = list.scrollHeight;
  }

  return {
    look,
    view,
    follow,
    forget: () => { known = { ...empty }; },
    get ended() { return known.ended; },
  };
}
