// What several pages show.

import { html, nothing } from "./vendor/lit-html.js";
import { dateTime } from "./format.js";

export const status = (word) => html`<span class="status ${word}">${word.toLowerCase()}</span>`;

// A job of a service that cannot be asked is shown as far as it is known.
export const silence = (service) =>
  service && !service.reachable
    ? html`<p class="notice" role="status">
        ${service.message} What is shown is what is known${service.since ? ` since ${dateTime(service.since)}` : ""}; this
        page asks again.
      </p>`
    : nothing;

export const refusal = (error) => html`<p class="notice bad" role="alert">${error.message}</p>`;

// A table that is scrolled within itself where the window is narrow.
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

// The head of a column that its table can be sorted by. `by` is { column, down }.
export const sortable = (column, name, by, sort, number = false) => html`
  <th scope="col" class=${number ? "number" : ""} aria-sort=${by.column !== column ? "none" : by.down ? "descending" : "ascending"}>
    <button type="button" @click=${() => sort(column)}>${name}</button>
  </th>
`;

// Sorted by what `read` finds in a row; what has none comes last, whichever way.
export function sorted(rows, read, down) {
  const missing = (value) => value === null || value === undefined || value === "";
  return [...rows].sort((one, other) => {
    const [a, b] = [read(one), read(other)];
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
    return down ? -order : order;
  });
}
