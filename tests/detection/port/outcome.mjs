// A port of the detector `outcome`, written from a bundle's README alone. Usage:
//   node outcome.mjs BUNDLE
// prints {"passed": n, "failed": [...]} for the bundle's conformance vectors.
import { readFileSync } from "node:fs";
import { join } from "node:path";

const folder = process.argv[2];
const read = (name) => JSON.parse(readFileSync(join(folder, name), "utf8"));
const { parameters, levels, weights } = read("thresholds.json");
const layers = readLayers(readFileSync(join(folder, weights.name)));

function readLayers(bytes) {
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString("utf8", 8, 8 + length));
  const tensor = (name) => {
    const { shape, data_offsets: [start, stop] } = header[name];
    const numbers = [];
    for (let at = start; at < stop; at += 4) numbers.push(bytes.readFloatLE(8 + length + at));
    return { shape, numbers };
  };
  const found = [];
  for (let n = 0; `layers.${n}.weight` in header; n++)
    found.push({ weight: tensor(`layers.${n}.weight`), bias: tensor(`layers.${n}.bias`).numbers });
  return found;
}

const grid2 = (rows, columns, value) =>
  Array.from({ length: rows }, (_, y) => Array.from({ length: columns }, (_, x) => value(y, x)));
const map3 = (image, f) => image.map((plane, c) => plane.map((row, y) => row.map((v, x) => f(v, c, y, x))));
const mean = (numbers) => numbers.reduce((a, b) => a + b, 0) / numbers.length;
const clip = (image) => map3(image, (v) => Math.min(3, Math.max(-3, v)));

const atGrid = (vector, first, at) => {
  const steps = vector.log_snr.map((value, k) => k).slice(first);
  const above = steps.find((k) => vector.log_snr[k] >= at);
  if (above === undefined) return vector.values[vector.values.length - 1];
  if (above === first) return vector.values[first];
  const part = (at - vector.log_snr[above - 1]) / (vector.log_snr[above] - vector.log_snr[above - 1]);
  const [low, high] = [vector.values[above - 1], vector.values[above]];
  return map3(low, (v, c, y, x) => v + (high[c][y][x] - v) * part);
};

const factorOf = (image) => Math.max(1, Math.ceil(Math.max(image[0].length, image[0][0].length) / parameters.resolution));

function pool(image) {
  const [height, width, f] = [image[0].length, image[0][0].length, factorOf(image)];
  return grid2(Math.ceil(height / f), Math.ceil(width / f), (y, x) => {
    let sum = 0;
    for (const plane of image)
      for (let i = 0; i < f; i++)
        for (let j = 0; j < f; j++)
          sum += plane[Math.min(y * f + i, height - 1)][Math.min(x * f + j, width - 1)];
    return sum / (image.length * f * f);
  });
}

const logSize = (change) =>
  pool(map3(change, (v) => v * v)).map((row) => row.map((v) => Math.log(Math.sqrt(v) + parameters.floor)));

function fold(image, f) {
  const found = [];
  for (const plane of image)
    for (let i = 0; i < f; i++)
      for (let j = 0; j < f; j++)
        found.push(grid2(plane.length / f, plane[0].length / f, (y, x) => plane[y * f + i][x * f + j]));
  return found;
}

function picture(image) {
  const f = factorOf(image);
  if (image.length * f * f <= 16 && image[0].length % f === 0 && image[0][0].length % f === 0) return fold(image, f);
  const average = pool(image);
  const square = pool(map3(image, (v) => v * v));
  return [average, square.map((row, y) => row.map((v, x) => Math.sqrt(Math.max(v - average[y][x] ** 2, 0))))];
}

const deviation = (numbers) => { const m = mean(numbers); return Math.sqrt(mean(numbers.map((v) => (v - m) ** 2))); };

function inputs(vector) {
  let first = 0;
  vector.log_snr.forEach((value, k) => { if (value <= levels.log_snr[0]) first = k; });
  const points = levels.log_snr.map((at) => atGrid(vector, first, at));
  const dynamics = points.slice(1).map((later, j) =>
    logSize(map3(later, (v, c, y, x) => v - points[j][c][y][x]))
      .map((row) => row.map((v) => (v - levels.location[j]) / levels.scale[j])));
  const x0 = clip(points[points.length - 1]);
  const channels = [];
  if (parameters.inputs !== "snapshot") channels.push(...dynamics);
  if (parameters.inputs !== "dynamics") channels.push(...picture(x0), ...picture(vector.eps));
  if (parameters.lookahead !== null) {
    const lookahead_x0 = clip(vector.lookahead_x0);
    const change = map3(lookahead_x0, (v, c, y, x) => v - x0[c][y][x]);
    channels.push(...picture(lookahead_x0), ...picture(change), logSize(change));
  }
  return { channels, shown: parameters.inputs === "dynamics" ? dynamics : picture(x0) };
}

function layout(planes) {
  const [height, width] = [planes[0].length, planes[0][0].length];
  const over = (read) => mean(planes.map(read));
  const places = (h, w, read) => Array.from({ length: h * w }, (_, i) => read(Math.floor(i / w), i % w));
  const far = (h, w, read) => over((plane) => (h * w ? mean(places(h, w, (y, x) => Math.abs(read(plane, y, x)))) : 0));
  const edge = (i, side) => Math.floor((i * side) / Math.min(4, side));
  const blocks = [];
  for (let i = 0; i < Math.min(4, height); i++)
    for (let j = 0; j < Math.min(4, width); j++) {
      const [top, left] = [edge(i, height), edge(j, width)];
      blocks.push(over((plane) => mean(places(edge(i + 1, height) - top, edge(j + 1, width) - left,
        (y, x) => plane[top + y][left + x]))));
    }
  return [
    over((plane) => mean(plane.flat())), over((plane) => deviation(plane.flat())),
    over((plane) => Math.max(...plane.flat())), over((plane) => Math.min(...plane.flat())),
    far(height - 1, width, (plane, y, x) => plane[y + 1][x] - plane[y][x]),
    far(height, width - 1, (plane, y, x) => plane[y][x + 1] - plane[y][x]),
    far(height, width, (plane, y, x) => plane[y][x] - plane[height - 1 - y][x]),
    far(height, width, (plane, y, x) => plane[y][x] - plane[y][width - 1 - x]),
    ...blocks,
  ];
}

function layoutTerms(planes) {
  if (parameters.layout_location.length === 0) return [];
  const terms = layout(planes).map((v, i) =>
    Math.min(3, Math.max(-3, (v - parameters.layout_location[i]) / parameters.layout_scale[i])));
  const products = terms.flatMap((a, i) => terms.slice(i).map((b) => a * b));
  return parameters.products ? [...terms, ...products] : terms;
}

function convolve(image, { weight, bias }) {
  const [outputs, ins, side] = weight.shape;
  const reach = (side - 1) / 2;
  const [height, width] = [image[0].length, image[0][0].length];
  return Array.from({ length: outputs }, (_, o) => grid2(height, width, (y, x) => {
    let sum = bias[o];
    for (let c = 0; c < ins; c++)
      for (let i = 0; i < side; i++)
        for (let j = 0; j < side; j++) {
          const [row, column] = [y + i - reach, x + j - reach];
          if (row >= 0 && row < height && column >= 0 && column < width)
            sum += weight.numbers[((o * ins + c) * side + i) * side + j] * image[c][row][column];
        }
    return sum;
  }));
}

function network(channels) {
  const [height, width] = [channels[0].length, channels[0][0].length];
  const halved = layers[layers.length - 1].bias.length === 4;
  let image = channels;
  if (halved) {
    const even = channels.map((plane) => grid2(height + (height % 2), width + (width % 2), (y, x) =>
      plane[Math.min(y, height - 1)][Math.min(x, width - 1)]));
    image = fold(even, 2);
  }
  layers.forEach((layer, n) => {
    image = convolve(image, layer);
    if (n < layers.length - 1) image = map3(image, (v) => Math.max(v, 0));
  });
  if (!halved) return image[0];
  return grid2(height, width, (y, x) => image[(y % 2) * 2 + (x % 2)][y >> 1][x >> 1]);
}

function detect(vector) {
  const { channels, shown } = inputs(vector);
  const map = network(channels);
  const flat = channels.map((plane) => plane.flat());
  const places = map.flat();
  const sorted = [...places].sort((a, b) => a - b);
  const summary = [
    ...flat.map(mean), ...flat.map(deviation), ...flat.map((numbers) => Math.max(...numbers)),
    mean(places), sorted[Math.floor(0.9 * places.length)], Math.log(mean(places.map(Math.exp))),
    ...layoutTerms(shown),
  ];
  const [intercept, ...slopes] = parameters.coefficients;
  const score = summary.reduce((sum, v, i) => sum + v * slopes[i], intercept);
  const flagged = score > levels.level;
  const limit = sorted[places.length - Math.max(1, Math.round(parameters.share * places.length))];
  const f = factorOf(vector.values[0]);
  const mask = grid2(vector.values[0][0].length, vector.values[0][0][0].length, (y, x) =>
    (flagged && map[Math.floor(y / f)][Math.floor(x / f)] >= limit ? 1 : 0)).map((row) => row.join(""));
  return { mask, score, flagged };
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
