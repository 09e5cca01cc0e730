// Follows Airflow's theme, light or dark, also if it changes while the page is open.

let airflow = null;
try {
  // In Airflow's UI the page is a frame of the same origin.
  airflow = window.parent === window ? null : window.parent.document.documentElement;
} catch {
  airflow = null;
}
const system = matchMedia("(prefers-color-scheme: dark)");
const listeners = [];

function apply() {
  const dark = airflow ? airflow.classList.contains("dark") : system.matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  for (const listener of listeners) listener();
}

export const onTheme = (listener) => listeners.push(listener);

apply();
system.addEventListener("change", apply);
if (airflow) new MutationObserver(apply).observe(airflow, { attributeFilter: ["class"] });

// Airflow's frame may neither navigate its window nor open another one, so a link in the window itself is clicked.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[target=_top]");
  if (!link || !airflow || event.defaultPrevented) return;
  event.preventDefault();
  const outer = Object.assign(window.parent.document.createElement("a"), { href: link.href });
  window.parent.document.body.append(outer);
  outer.click();
  outer.remove();
});
