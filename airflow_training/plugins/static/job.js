// The page of one training.

import { html, nothing, render } from "./vendor/lit-html.js";
import { Refused, ask, poll, ref } from "./api.js";
import { Charts } from "./charts.js";
import { families } from "./curves.js";
import { bytes, dateTime, duration, number } from "./format.js";
import { jobLog } from "./log.js";
import { failure, status, table, unreachable } from "./parts.js";
import "./theme.js";

// Seconds between two polls: while the job runs, and afterwards, when the task may be cleared.
const OFTEN = 2;
const RARELY = 15;
// More charts are shown on request.
const MAX_CHARTS = 24;

const page = document.getElementById("page");
const notLoaded = { metrics: null, usage: null, model: null, environment: null, of: "", times: 0 };
const state = { error: null, cancelFailed: "", canceling: false, job: null, loaded: { ...notLoaded }, all: false };
const log = jobLog(draw);
const metricCharts = new Charts();
const usageCharts = new Charts();
const ended = (word) => ["SUCCEEDED", "FAILED", "CANCELED"].includes(word);

async function load() {
  try {
    const before = state.job?.job;
    state.job = await ask("job", ref);
    state.error = null;
    const { job } = state.job;
    // The task was cleared, or has gone on with another job.
    if (job?.job_id !== before?.job_id) {
      state.loaded = { ...notLoaded };
      log.forget();
    }
    if (job) await Promise.all([loadDetails(job), log.load()]);
  } catch (error) {
    state.error = error;
  }
  draw();
  if (state.error instanceof Refused) return state.job ? RARELY : null;
  return ended(state.job?.job?.status) && log.ended && state.loaded.times >= 2 ? RARELY : OFTEN;
}

// The details of a job that has ended are loaded twice: the first answer may predate its end by seconds.
async function loadDetails(job) {
  const { loaded } = state;
  if (loaded.of !== job.status) Object.assign(loaded, { of: job.status, times: 0 });
  if (ended(job.status) && loaded.times >= 2) return;
  // One request that fails does not affect the others.
  const requested = ended(job.status) ? ["metrics", "usage", "model", "environment"] : ["metrics", "usage"];
  const replies = await Promise.allSettled(requested.map((what) => ask(what, ref)));
  replies.forEach(({ value }, index) => {
    if (value) loaded[requested[index]] = value;
  });
  if (replies.every(({ value }) => value?.service.reachable)) loaded.times += 1;
}

function draw() {
  page.ariaBusy = state.job || state.error ? "false" : "true";
  const { job, service } = state.job ?? {};
  document.title = job ? `Training ${job.name}` : "Training";
  render(
    html`
      ${state.error ? failure(state.error) : nothing} ${unreachable(service)}
      ${job ? details(state.job) : nothing} ${state.job && !job ? html`<h1>Training</h1><p>${state.job.why_no_job}</p>` : nothing}
    `,
    page,
  );
  drawCharts();
  log.follow();
}

const details = (shown) => html`
  ${head(shown)} ${timeline(shown.job)}
  ${ended(shown.job.status) ? figures(shown.metrics) : nothing}
  <h2>Metrics</h2>
  ${metricsNote()}
  <div class="charts" id="metrics"></div>
  <h2>Resource usage</h2>
  ${usageNote()}
  <div class="charts" id="usage"></div>
  ${model(shown)} ${parameters(shown)} ${environment()}
  <h2>Log</h2>
  ${log.view(shown.task?.log_url)}
`;

const head = ({ job, task, may_cancel: mayCancel, connection }) => html`
  <div class="head">
    <h1>${job.name}</h1>
    ${status(job.status)}
    <span class="links">
      ${task ? html`<a href=${compareUrl(task)}>Compare runs</a> <a href=${task.log_url} target="_top">Airflow's log</a>` : nothing}
      ${connection ? html`<a href="jobs?${new URLSearchParams({ conn_id: connection })}">All jobs of ${connection}</a>` : nothing}
      ${mayCancel ? html`<button type="button" class="act danger" ?disabled=${state.canceling} @click=${confirmCancel}>Cancel …</button>` : nothing}
    </span>
  </div>
  <p class="weak">Job <code>${job.job_id}</code></p>
  ${state.cancelFailed ? html`<p class="notice bad" role="alert">${state.cancelFailed}</p>` : nothing}
  <dialog aria-labelledby="question" id="cancel">
    <h2 id="question">Cancel the job ${job.name}?</h2>
    <p>Its processes are stopped and its progress is lost. ${task ? "Its task fails." : ""}</p>
    <form method="dialog" class="bar">
      <button class="act" autofocus>Keep it running</button>
      <button class="act danger" @click=${() => cancel(job.job_id)}>Cancel the job</button>
    </form>
  </dialog>
`;

const compareUrl = (task) => `compare?${new URLSearchParams({ dag_id: task.dag_id, task_id: task.task_id })}`;
const confirmCancel = () => document.getElementById("cancel").showModal();

// Cancels the job that the user saw, not one that its task has gone on with since.
async function cancel(expected) {
  state.canceling = true;
  state.cancelFailed = "";
  draw();
  try {
    await ask("cancel", { ...ref, expected }, { method: "POST" });
  } catch (error) {
    state.cancelFailed = error.message;
  }
  state.canceling = false;
  reload();
}

function timeline(job) {
  const between = (from, to) => (from && to ? (new Date(to) - new Date(from)) / 1000 : null);
  const now = new Date().toISOString();
  const waiting = job.status === "PENDING";
  const over = ended(job.status);
  const steps = [{ name: "Submitted", value: dateTime(job.submitted), kind: "done" }];
  steps.push({
    name: waiting ? "Waiting" : "Waited",
    value: duration(between(job.submitted, job.started ?? job.finished ?? now)),
    why: waiting ? job.message : "",
    kind: waiting ? "now" : "done",
  });
  if (job.started) {
    const took = over && job.duration !== null ? job.duration : between(job.started, job.finished ?? now);
    steps.push({ name: over ? "Ran" : "Running", value: duration(took), why: job.status === "RUNNING" ? job.message : "", kind: over ? "done" : "now" });
  }
  if (over) {
    const name = { SUCCEEDED: "Succeeded", FAILED: "Failed", CANCELED: "Canceled" }[job.status];
    steps.push({ name, value: dateTime(job.finished), why: job.message, kind: job.status === "SUCCEEDED" ? "done" : "failed" });
  }
  return html`<ol class="timeline" aria-label="Timeline">
    ${steps.map(({ name, value, why, kind }) => html`<li class=${kind}><b>${name}</b>${value} ${why ? html`<span class="weak">${why}</span>` : nothing}</li>`)}
  </ol>`;
}

const figures = (metrics) =>
  Object.keys(metrics).length
    ? html`<dl class="figures" aria-label="Final metrics">
        ${Object.entries(metrics).map(([name, value]) => html`<div><dt>${name}</dt><dd>${number(value)}</dd></div>`)}
      </dl>`
    : nothing;

function metricsNote() {
  const { metrics } = state.loaded;
  if (!metrics) return nothing;
  if (!metrics.supported) return html`<p class="weak">This training service provides no curves. The log shows what the script prints.</p>`;
  const shown = families(metrics.curves);
  if (!shown.length) return html`<p class="weak">The script has not logged any metrics yet. It logs them as lines such as <code>{"metrics": {"loss": 0.3}, "epoch": 1}</code>.</p>`;
  if (shown.length <= MAX_CHARTS || state.all) return nothing;
  return html`<p>Showing ${MAX_CHARTS} of ${shown.length} charts. <button type="button" class="act" @click=${() => { state.all = true; draw(); }}>Show all</button></p>`;
}

function usageNote() {
  const { usage } = state.loaded;
  if (!usage) return nothing;
  if (!usage.supported) return html`<p class="weak">This training service does not report resource usage.</p>`;
  return usage.samples.length ? nothing : html`<p class="weak">No measurements yet.</p>`;
}

function drawCharts() {
  const { metrics, usage } = state.loaded;
  if (!state.job?.job) return;
  const curves = metrics?.supported ? families(metrics.curves) : [];
  metricCharts.show(document.getElementById("metrics"), state.all ? curves : curves.slice(0, MAX_CHARTS));
  usageCharts.show(document.getElementById("usage"), usage?.supported ? usageOverTime(usage) : []);
}

function usageOverTime({ samples, allocated, requested }) {
  const limit = allocated ?? requested;
  const shown = (key, title, y, name, max) => {
    const points = samples.filter((sample) => typeof sample[key] === "number").map((sample) => [sample.time, sample[key]]);
    const lines = [{ name, points }];
    if (max && points.length) lines.push({ name: `allocated (${number(max)})`, points: [points[0], points.at(-1)].map(([x]) => [x, max]), limit: true });
    return { key, title, x: "time", y, time: true, fromZero: true, lines };
  };
  return [
    shown("cpus", "CPU", "CPUs", "CPUs used", limit?.cpus),
    shown("memory", "Memory", "MB", "memory used", limit?.memory),
    shown("gpus", "GPU", "GPUs", "GPUs used", limit?.gpus),
    shown("gpu_memory", "GPU memory", "MB", "GPU memory used"),
  ].filter(({ lines: [used] }) => used.points.length);
}

function model({ location }) {
  const { model: found, supported } = state.loaded.model ?? {};
  if (!found && !location) return nothing;
  return html`
    <h2>${found?.format || (found?.path === "." ? "Files" : "Model")}</h2>
    <p><code>${location || found.path}</code></p>
    ${found?.choice ? html`<p class="notice">${found.choice}</p>` : nothing}
    ${found ? signatures(found) : nothing} ${found ? files(found) : nothing}
    ${!found && supported === false ? html`<p class="weak">This training service does not describe models.</p>` : nothing}
  `;
}

const tensors = (signature, kind, list) =>
  list.map(
    ({ name, type, shape }) => html`<tr>
      <td>${signature}</td>
      <td>${kind}</td>
      <td class="value">${name}</td>
      <td>${type}</td>
      <td>${shape ? `(${shape.map((size) => size ?? "any").join(" × ")})` : "any"}</td>
    </tr>`,
  );

const signatures = ({ signatures: found, reason }) =>
  found
    ? html`<h3>Signatures</h3>
        ${table(
          "Signatures of the model",
          ["Signature", "", "Name", "Type", "Shape"].map((name) => html`<th scope="col">${name || html`Input or output`}</th>`),
          found.map(({ name, inputs, outputs }) => [tensors(name, "input", inputs), tensors(name, "output", outputs)]),
        )}`
    : reason
      ? html`<p class="weak">${reason}</p>`
      : nothing;

const files = ({ files: found }) => html`
  <h3>Files</h3>
  ${table(
    "Files of the model",
    html`<th scope="col">File</th><th scope="col" class="number">Size</th>`,
    [
      found.map(({ name, size }) => html`<tr><td class="value">${name}</td><td class="number">${bytes(size)}</td></tr>`),
      html`<tr><td>${number(found.length)} files</td><td class="number">${bytes(found.reduce((sum, { size }) => sum + size, 0))}</td></tr>`,
    ],
  )}
`;

const parameters = ({ parameters: shown, inputs }) => html`
  ${shown.length
    ? html`<h2>Parameters</h2>
        ${table(
          "Parameters",
          html`<th scope="col">Parameter</th><th scope="col">Value</th>`,
          shown.map(([name, value]) => html`<tr><td>${name}</td><td class="value">${value}</td></tr>`),
        )}`
    : nothing}
  ${inputs.length ? html`<h2>Inputs</h2><p>${inputs.map((name, index) => html`${index ? ", " : ""}<code>${name}</code>`)}</p>` : nothing}
`;

function environment() {
  const { python, packages } = state.loaded.environment ?? {};
  if (!packages?.length) return nothing;
  return html`
    <h2>Environment</h2>
    <details>
      <summary>${python ? `Python ${python}, ` : ""}${number(packages.length)} packages</summary>
      ${packages.map((name) => html`<code class="package">${name}</code>`)}
    </details>
  `;
}

const reload = poll(load);
