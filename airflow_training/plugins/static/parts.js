// Elements that several pages share.

import { html, nothing } from "./vendor/lit-html.js";
import { dateTime } from "./format.js";

export const status = (word) => html`<span class="status ${word}">${word.toLowerCase()}</span>`;

// While the service is unreachable, the page shows the last known state.
export const unreachable = (service) =>
  service && !service.reachable
    ? html`<p class="notice" role="status">
        ${service.message} This page shows the last known state${service.since ? `, as of ${dateTime(service.since)}` : ""},
        and keeps trying.
      </p>`
    : nothing;

export const failure = (error) => html`<p class="notice bad" role="alert">${error.message}</p>`;

// A table that scrolls horizontally in a narrow window.
export const table = (name, head, rows) => html`
  <div class="scroll" role="region" aria-label=${name} tabindex="0">
    <table>
      <thead>
        <tr>
          ${head}
        </tr>
      </thead>
      <tbody>
        ${rows}
      </tbody>
    </table>
  </div>
`;

// The header of a sortable column. `by` is { column, down }.
export const sortable = (column, name, by, sort, number = false) => html`
  <th scope="col" class=${number ? "number" : ""} aria-sort=${by.column !== column ? "none" : by.down ? "descending" : "ascending"}>
    <button type="button" @click=${() => sort(column)}>${name}</button>
  </th>
`;

// Rows sorted by the value that `read` returns; rows without a value come last in either direction.
export function sorted(rows, read, down) {
  const missing = (value) => value === null || value === undefined || value === "";
  return [...rows].sort((one, other) => {
    const [a, b] = [read(one), read(other)];
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
    return down ? -order : order;
  });
}
