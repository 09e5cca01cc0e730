// All jobs of a connection.

import { html, nothing, render } from "./vendor/lit-html.js";
import { Refused, ask, poll, ref } from "./api.js";
import { dateTime, duration, number } from "./format.js";
import { failure, sortable, sorted, status, table, unreachable } from "./parts.js";
import "./theme.js";

const OFTEN = 3;
const RARELY = 15;

const page = document.getElementById("page");
const state = { error: null, found: null, connection: ref.conn_id ?? "", word: "", text: "", by: { column: "submitted", down: true }, selected: new Set() };
const COLUMNS = {
  name: (job) => job.name,
  status: (job) => job.status,
  submitted: (job) => job.submitted,
  duration: (job) => job.duration,
};

async function load() {
  const { connection } = state;
  try {
    const found = await ask("jobs", connection ? { conn_id: connection } : {});
    // The user has selected another connection meanwhile.
    if (connection !== state.connection) return 0;
    state.found = found;
    state.error = null;
  } catch (error) {
    state.error = error;
  }
  draw();
  if (state.error instanceof Refused && !state.found) return null;
  return state.found?.jobs.some(({ status: word }) => ["PENDING", "RUNNING"].includes(word)) ? OFTEN : RARELY;
}

function draw() {
  page.ariaBusy = state.found || state.error ? "false" : "true";
  const { connections = [], jobs = [], left_out: leftOut, service } = state.found ?? {};
  const text = state.text.toLowerCase();
  const kept = jobs.filter(
    (job) => (!state.word || job.status === state.word) && (!text || [job.name, job.job_id, job.message].some((one) => one.toLowerCase().includes(text))),
  );
  render(
    html`
      <div class="head">
        <h1>Training jobs</h1>
        ${select("Connection", connections, state.found?.connection ?? "", (value) => { state.connection = value; reload(); })}
      </div>
      ${state.error ? failure(state.error) : nothing} ${unreachable(service)}
      ${state.found && !connections.length ? html`<p>There is no connection to a training service that you have permission to read.</p>` : nothing}
      ${connections.length ? filters(jobs, kept, leftOut) : nothing} ${kept.length ? list(kept) : nothing}
    `,
    page,
  );
}

const select = (name, values, value, onSelect) => html`<label>
  ${name}
  <select @change=${(event) => onSelect(event.target.value)}>
    ${values.map((one) => html`<option value=${one} ?selected=${one === value}>${one || "all"}</option>`)}
  </select>
</label>`;

const filters = (jobs, kept, leftOut) => html`<div class="bar">
  ${select("Status", ["", ...new Set([state.word, ...jobs.map((job) => job.status)].filter(Boolean))], state.word, (value) => { state.word = value; draw(); })}
  <label>Search <input type="search" .value=${state.text} @input=${(event) => { state.text = event.target.value; draw(); }} /></label>
  <span class="weak" role="status">
    ${number(kept.length)} of ${number(jobs.length)} jobs${leftOut ? `; ${number(leftOut)} of Dags that you cannot read are hidden` : ""}
  </span>
  <span class="end">${state.selected.size > 1 ? html`<a href="compare?${new URLSearchParams([...state.selected].map((one) => ["ti", one]))}">Compare ${state.selected.size}</a>` : nothing}</span>
</div>`;

function sort(column) {
  state.by = { column, down: state.by.column === column ? !state.by.down : true };
  draw();
}

const list = (jobs) =>
  table(
    "Jobs",
    html`
      <th scope="col">Compare</th>
      ${sortable("name", "Job", state.by, sort)} ${sortable("status", "Status", state.by, sort)}
      <th scope="col">Message</th>
      ${sortable("submitted", "Submitted", state.by, sort)} ${sortable("duration", "Duration", state.by, sort, true)}
      <th scope="col">Task</th>
    `,
    sorted(jobs, COLUMNS[state.by.column], state.by.down).map(
      (job) => html`<tr>
        <td>${job.task ? box(job) : nothing}</td>
        <th scope="row"><a href=${job.url}>${job.name || job.job_id}</a></th>
        <td>${status(job.status)}</td>
        <td class="value">${job.message}</td>
        <td>${dateTime(job.submitted)}</td>
        <td class="number">${duration(job.duration)}</td>
        <td class="value">${job.task ? `${job.task.dag_id} ${job.task.task_id}${job.task.map_index >= 0 ? ` ${job.task.map_index}` : ""}` : ""}</td>
      </tr>`,
    ),
  );

function box(job) {
  const one = JSON.stringify(job.task);
  const toggle = (event) => { state.selected[event.target.checked ? "add" : "delete"](one); draw(); };
  return html`<input type="checkbox" aria-label="Compare ${job.name}, submitted ${dateTime(job.submitted)}" .checked=${state.selected.has(one)} @change=${toggle} />`;
}

const reload = poll(load);
