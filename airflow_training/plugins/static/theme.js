// Takes Airflow's theme: light or dark, also when it is changed while this page is open.

let airflow = null;
try {
  // Within Airflow the page is a frame of the same origin.
  airflow = window.parent === window ? null : window.parent.document.documentElement;
} catch {
  airflow = null;
}
const system = matchMedia("(prefers-color-scheme: dark)");
const listeners = [];

function take() {
  const dark = airflow ? airflow.classList.contains("dark") : system.matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  for (const listener of listeners) listener();
}

export const onTheme = (listener) => listeners.push(listener);

take();
system.addEventListener("change", take);
if (airflow) new MutationObserver(take).observe(airflow, { attributeFilter: ["class"] });

// Airflow's frame may not lead its window elsewhere, nor open another one: a link of the window's own does it.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[target=_top]");
  if (!link || !airflow || event.defaultPrevented) return;
  event.preventDefault();
  const theirs = Object.assign(window.parent.document.createElement("a"), { href: link.href });
  window.parent.document.body.append(theirs);
  theirs.click();
  theirs.remove();
});
