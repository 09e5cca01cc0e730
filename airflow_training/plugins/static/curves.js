// Which curves belong into one chart.

// `loss` and `val_loss`, or those of TensorBoard's folders `train` and `validation`, are of one family.
export const family = (name) => name.split("/").at(-1).replace(/^val_/, "");

// From { key: [ { name, unit, points } ] } per line: by family and unit, in the order of the names.
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

const line = ({ label, name, points }) => ({ name: label ?? name, points: points.map(([, step, value]) => [step, value]) });
