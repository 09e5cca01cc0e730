// Several trainings compared: their curves in common charts, their parameters and metrics in a table.

import { html, nothing, render } from "./vendor/lit-html.js";
import { Refused, ask, poll, ref, selected } from "./api.js";
import { Charts } from "./charts.js";
import { families, family } from "./curves.js";
import { duration, number } from "./format.js";
import { failure, sortable, sorted, status, table, unreachable } from "./parts.js";
import "./theme.js";

const OFTEN = 5;
const RARELY = 20;
// Trainings selected at first, and at most: more colors cannot be distinguished.
const INITIAL = 5;
const MAX = 8;

const page = document.getElementById("page");
const state = { error: null, found: null, task: ref.task_id ?? "", shown: new Set(), initial: true, curves: new Map(), by: { column: "", down: false } };
const charts = new Charts();
const keyOf = (training) => JSON.stringify(training.ref);

async function load() {
  const { task } = state;
  try {
    const query = selected.length ? { ti: selected } : { dag_id: ref.dag_id ?? "", ...(task ? { task_id: task } : {}) };
    const found = await ask("trainings", query);
    // The user has selected another task meanwhile.
    if (task !== state.task) return 0;
    state.found = found;
    state.error = null;
    const { trainings } = found;
    if (state.initial) state.shown = new Set(trainings.slice(0, selected.length ? MAX : INITIAL).map(keyOf));
    state.initial = !trainings.length;
    await loadCurves(trainings.filter((training) => state.shown.has(keyOf(training))));
  } catch (error) {
    state.error = error;
  }
  draw();
  if (state.error instanceof Refused && !state.found) return null;
  return state.found?.trainings.some(({ status: word }) => ["PENDING", "RUNNING"].includes(word)) ? OFTEN : RARELY;
}

// The curves of a job that has ended are loaded twice: the first answer may predate its end by seconds.
async function loadCurves(trainings) {
  const wanted = trainings.filter((training) => {
    const known = state.curves.get(keyOf(training));
    return training.status === "RUNNING" || known?.of !== jobOf(training) || known.times < 2;
  });
  await Promise.allSettled(
    wanted.map(async (training) => {
      const { curves, service } = await ask("metrics", training.ref);
      if (!service.reachable) return;
      const known = state.curves.get(keyOf(training));
      const times = known?.of === jobOf(training) ? known.times + 1 : 1;
      state.curves.set(keyOf(training), { of: jobOf(training), times, curves });
    }),
  );
}

const jobOf = (training) => `${training.job_id} ${training.status}`;

function draw() {
  page.ariaBusy = state.found || state.error ? "false" : "true";
  const { trainings = [], tasks = [], service } = state.found ?? {};
  render(
    html`
      <div class="head"><h1>Compare trainings</h1>${tasks.length > 1 && !selected.length ? choice(tasks) : nothing}</div>
      ${state.error ? failure(state.error) : nothing} ${unreachable(service)}
      ${state.found && !trainings.length ? html`<p>No training has been submitted yet.</p>` : nothing}
      ${trainings.length ? list(trainings) : nothing}
      ${trainings.length ? html`<h2>Curves</h2>` : nothing}
      ${state.found && trainings.length && !lines(trainings).length ? html`<p class="weak">The selected trainings have no curves.</p>` : nothing}
      <div class="charts wide" id="curves"></div>
    `,
    page,
  );
  charts.show(document.getElementById("curves"), families(lines(trainings)));
}

const shownOf = (trainings) => trainings.filter((training) => state.shown.has(keyOf(training)));

// A training has the same color in each chart, by its position among all trainings shown.
const lines = (trainings) =>
  shownOf(trainings)
    .flatMap((training, color) => (state.curves.get(keyOf(training))?.curves ?? []).map((curve) => ({ ...curve, color, label: curve.name === family(curve.name) ? training.label : `${training.label} ${curve.name}` })));

const choice = (tasks) => html`<label>
  Task
  <select @change=${(event) => { state.task = event.target.value; state.initial = true; reload(); }}>
    <option value="">all</option>
    ${tasks.map((task) => html`<option value=${task} ?selected=${task === state.task}>${task}</option>`)}
  </select>
</label>`;

function sort(column) {
  state.by = { column, down: state.by.column === column ? !state.by.down : true };
  draw();
}

function toggle(training, on) {
  if (on) state.shown.add(keyOf(training));
  else state.shown.delete(keyOf(training));
  draw();
  if (on) loadCurves([training]).then(draw);
}

function list(trainings) {
  // Values that are the same for all trainings are left out.
  const [parameters, metrics] = ["parameters", "metrics"].map((kind) =>
    names(trainings, kind).filter((name) => trainings.length === 1 || new Set(trainings.map((one) => own(one[kind], name))).size > 1),
  );
  const columns = new Map([
    ["label", (one) => one.label],
    ["status", (one) => one.status],
    ["duration", (one) => one.duration],
    ...parameters.map((name) => [`parameter ${name}`, (one) => own(one.parameters, name)]),
    ...metrics.map((name) => [`metric ${name}`, (one) => own(one.metrics, name)]),
  ]);
  const rows = state.by.column ? sorted(trainings, columns.get(state.by.column) ?? (() => null), state.by.down) : trainings;
  const head = (column, name, isNumber) => sortable(column, name, state.by, sort, isNumber);
  return table(
    "Trainings",
    html`
      <th scope="col">Curves</th>
      ${head("label", "Run")} ${head("status", "Status")} ${head("duration", "Duration", true)}
      ${parameters.map((name) => head(`parameter ${name}`, name))} ${metrics.map((name) => head(`metric ${name}`, name, true))}
    `,
    rows.map(
      (one) => html`<tr>
        <td>
          <input
            type="checkbox"
            aria-label="Curves of ${one.label}"
            .checked=${state.shown.has(keyOf(one))}
            ?disabled=${!state.shown.has(keyOf(one)) && shownOf(trainings).length >= MAX}
            @change=${(event) => toggle(one, event.target.checked)}
          />
        </td>
        <th scope="row">
          <a href="job?${new URLSearchParams(one.ref)}">${one.label}</a> ${one.deployed ? html`<span class="deployed">deployed</span>` : nothing}
        </th>
        <td>${status(one.status)}</td>
        <td class="number">${duration(one.duration)}</td>
        ${parameters.map((name) => html`<td class="value">${own(one.parameters, name) ?? ""}</td>`)}
        ${metrics.map((name) => html`<td class="number">${number(own(one.metrics, name))}</td>`)}
      </tr>`,
    ),
  );
}

// A metric may have any name, including `__proto__`.
const own = (object, name) => (Object.hasOwn(object, name) ? object[name] : undefined);
const names = (trainings, kind) => [...new Set(trainings.flatMap((one) => Object.keys(one[kind])))].sort();

const reload = poll(load);
