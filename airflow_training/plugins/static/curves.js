// Which curves belong in one chart.

// `loss` and `val_loss`, or those in TensorBoard's folders `train` and `validation`, belong to one family.
export const family = (name) => name.split("/").at(-1).replace(/^val_/, "");

// Charts of the curves, one for each family and unit.
export function families(curves) {
  const found = new Map();
  for (const curve of curves) {
    const key = JSON.stringify([family(curve.name), curve.unit]);
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(curve);
  }
  return [...found.entries()].map(([key, members]) => {
    const [name, unit] = JSON.parse(key);
    return { key, title: name, x: unit, y: name, lines: members.map(line) };
  });
}

// If trainings are compared, each has its color, and its validation curves are dashed.
const line = ({ label, color, name, points }) => ({
  name: label ?? name,
  color,
  dashed: color !== undefined && /(^|\/)val/.test(name),
  points: points.map(([, step, value]) => [step, value]),
});
