// A port of the detector `calibrated`, written from a bundle's README alone. Usage:
//   node detector.mjs BUNDLE
// prints {"passed": n, "failed": [...]} for the bundle's conformance vectors.
import { readFileSync } from "node:fs";
import { join } from "node:path";

const folder = process.argv[2];
const read = (name) => JSON.parse(readFileSync(join(folder, name), "utf8"));
const { parameters, levels, cleanup } = read("thresholds.json");

const grid2 = (rows, columns, value) =>
  Array.from({ length: rows }, (_, y) => Array.from({ length: columns }, (_, x) => value(y, x)));
const combine = (a, b, f) => a.map((image, c) => image.map((row, y) => row.map((v, x) => f(v, b[c][y][x]))));

function signals(vector) {
  const kappa = vector.sigma.map((s, k) => s / vector.alpha[k]);
  let first = 0;
  vector.log_snr.forEach((value, k) => { if (value <= levels.log_snr[0]) first = k; });
  let running = null;
  const steps = [];
  for (let k = first; k < vector.values.length; k++) {
    const value = vector.values[k];
    let signal = value;
    if (parameters.signal === "weighted_score") signal = combine(value, value, (v) => -kappa[k] * v);
    if (parameters.signal === "innovation") {
      running = running === null
        ? combine(value, value, () => 0)
        : combine(running, combine(value, vector.values[k - 1], (a, b) => a - b), (s, d) => s - kappa[k] * d);
      signal = running;
    }
    steps.push({ at: vector.log_snr[k], signal });
  }
  return steps;
}

function interpolate(steps, at) {
  const above = steps.findIndex((step) => step.at >= at);
  if (above === -1) return steps[steps.length - 1].signal;
  if (above === 0) return steps[0].signal;
  const [low, high] = [steps[above - 1], steps[above]];
  const part = (at - low.at) / (high.at - low.at);
  return combine(low.signal, high.signal, (a, b) => a + (b - a) * part);
}

function pool(values) {
  const [height, width] = [values[0].length, values[0][0].length];
  const f = Math.max(1, Math.ceil(Math.max(height, width) / parameters.resolution));
  return grid2(Math.ceil(height / f), Math.ceil(width / f), (y, x) => {
    let sum = 0;
    for (const image of values)
      for (let i = 0; i < f; i++)
        for (let j = 0; j < f; j++)
          sum += image[Math.min(y * f + i, height - 1)][Math.min(x * f + j, width - 1)];
    return sum / (values.length * f * f);
  });
}

function blur(map) {
  const sigma = parameters.blur * Math.min(map.length, map[0].length);
  if (sigma <= 0) return map;
  const radius = Math.floor(4 * sigma + 0.5);
  let kernel = Array.from({ length: 2 * radius + 1 }, (_, i) => Math.exp(-((i - radius) ** 2) / (2 * sigma * sigma)));
  const total = kernel.reduce((a, b) => a + b);
  kernel = kernel.map((v) => v / total);
  const mirror = (i, n) => { const m = ((i % (2 * n)) + 2 * n) % (2 * n); return m < n ? m : 2 * n - 1 - m; };
  const along = (m, get) => grid2(m.length, m[0].length, (y, x) =>
    kernel.reduce((sum, weight, i) => sum + weight * get(m, y, x, i - radius), 0));
  const vertical = along(map, (m, y, x, d) => m[mirror(y + d, m.length)][x]);
  return along(vertical, (m, y, x, d) => m[y][mirror(x + d, m[0].length)]);
}

function detect(vector) {
  const steps = signals(vector);
  const [height, width] = [vector.values[0][0].length, vector.values[0][0][0].length];
  const cells = [];
  for (let j = 0; j + 1 < levels.log_snr.length; j++) {
    if (levels.log_snr[j + 1] <= steps[0].at) continue;
    const change = combine(interpolate(steps, levels.log_snr[j + 1]), interpolate(steps, levels.log_snr[j]), (a, b) => a - b);
    let size = blur(pool(combine(change, change, (a) => a * a))).map((row) => row.map(Math.sqrt));
    if (parameters.contrast === "local") {
      const closing = (steps.find((step) => step.at >= levels.log_snr[j + 1]) ?? steps[steps.length - 1]).signal;
      const mean = blur(pool(closing));
      const square = blur(pool(combine(closing, closing, (a) => a * a)));
      size = size.map((row, y) => row.map((v, x) =>
        v / (Math.sqrt(Math.max(square[y][x] - mean[y][x] ** 2, 0)) + 10 * parameters.floor)));
    }
    cells.push(size.map((row, y) => row.map((v, x) => {
      const at = (numbers) => (Array.isArray(numbers) ? numbers[y][x] : numbers);
      const z = (Math.log(v + parameters.floor) - at(levels.location[j])) / at(levels.scale[j]);
      return parameters.direction === "high" ? z : parameters.direction === "low" ? -z : Math.abs(z);
    })));
  }
  const [rows, columns] = [cells[0].length, cells[0][0].length];
  const joined = grid2(rows, columns, (y, x) => {
    const z = cells.map((cell) => cell[y][x]);
    if (parameters.combine === "mean") return z.reduce((a, b) => a + b) / z.length;
    if (parameters.combine === "peak") return Math.max(...z);
    return Math.max(-1e4, ...z.slice(1).map((v, i) => Math.min(v, z[i])));
  });
  const w = cleanup.min_width === 0 ? 1 : Math.max(2, Math.ceil(cleanup.min_width * Math.min(rows, columns) - 1e-9));
  const [h, b] = [Math.min(w, rows), Math.min(w, columns)];
  const opened = grid2(rows, columns, () => -Infinity);
  for (let y = 0; y + h <= rows; y++)
    for (let x = 0; x + b <= columns; x++) {
      let least = Infinity;
      for (let i = 0; i < h; i++) for (let j = 0; j < b; j++) least = Math.min(least, joined[y + i][x + j]);
      for (let i = 0; i < h; i++) for (let j = 0; j < b; j++) opened[y + i][x + j] = Math.max(opened[y + i][x + j], least);
    }
  const f = Math.ceil(Math.max(height / rows, width / columns));
  const score = Math.max(...opened.flat());
  const mask = grid2(height, width, (y, x) => (opened[Math.floor(y / f)][Math.floor(x / f)] > levels.level ? 1 : 0)).map((row) => row.join(""));
  return { mask, score, flagged: score > levels.level };
}

const failed = [];
const vectors = read("conformance.json");
vectors.forEach((vector, i) => {
  const found = detect(vector);
  const same = found.flagged === vector.flagged && Math.abs(found.score - vector.score) < 1e-3
    && found.mask.join() === vector.mask.join();
  if (!same) failed.push({ i, score: found.score, expected: vector.score });
});
console.log(JSON.stringify({ passed: vectors.length - failed.length, failed }));
process.exit(failed.length ? 1 : 0);
