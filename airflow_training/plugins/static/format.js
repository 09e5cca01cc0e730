// Numbers, times and sizes in readable form.

const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const hour = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 4 });

export const dateTime = (iso) => (iso ? written(clock, iso) : "–");
export const time = (iso) => (iso ? written(hour, iso) : "");

function written(format, iso) {
  const date = new Date(iso);
  return Number.isNaN(date.getTime()) ? String(iso) : format.format(date);
}

export function number(value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return "–";
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return whole.format(value);
  const size = Math.abs(value);
  return size >= 1e-3 && size < 1e6 ? short.format(value) : value.toExponential(2);
}

export function duration(seconds) {
  if (typeof seconds !== "number") return "–";
  // Negative if the clocks of two machines differ.
  const past = Math.max(seconds, 0);
  if (past < 9.95) return `${Math.round(past * 10) / 10} s`;
  const whole = Math.round(past);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

export function bytes(count) {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  for (; count >= 1024 && power < units.length - 1; power += 1) count /= 1024;
  return `${power ? short.format(count) : count} ${units[power]}`;
}
