// Which curves belong into one chart.

// `loss` and `val_loss`, or those of TensorBoard's folders `train` and `validation`, are of one family.
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

// Of trainings that are compared, each has its colour; the curves of its validation are dashed then.
const line = ({ label, colour, name, points }) => ({
  name: label ?? name,
  colour,
  dashed: colour !== undefined && /(^|\/)val/.test(name),
  points: points.map(([, step, value]) => [step, value]),
});
