// Colour scales that read the same with and without colour vision.

// matplotlib's cividis at equal distances (held to it by a test)
const CIVIDIS = [
  [0, 34, 78], [0, 46, 106], [26, 56, 111], [50, 67, 109], [67, 78, 108], [83, 90, 109],
  [97, 101, 111], [111, 112, 115], [125, 124, 120], [140, 136, 120], [155, 148, 118], [171, 160, 114],
  [188, 174, 108], [205, 187, 99], [222, 201, 88], [240, 216, 70], [254, 232, 56],
];
const DIVERGING = [[0, 72, 125], [0, 114, 178], [120, 178, 214], [247, 247, 247], [240, 170, 115], [213, 94, 0], [140, 55, 0]];

const FLAGGED = "#D55E00";
const BY_HAND = "#0072B2";
const PHASES = [
  ["Profiling", "#56B4E9"],
  ["Mutation", "#E69F00"],
  ["Refinement", "#009E73"],
];

function table(anchors) {
  const colours = new Uint8Array(256 * 3);
  for (let place = 0; place < 256; place += 1) {
    const at = (place / 255) * (anchors.length - 1);
    const left = Math.min(Math.floor(at), anchors.length - 2);
    for (let channel = 0; channel < 3; channel += 1) {
      const [low, high] = [anchors[left][channel], anchors[left + 1][channel]];
      colours[3 * place + channel] = Math.round(low + (high - low) * (at - left));
    }
  }
  return colours;
}

const SCALES = { sequential: table(CIVIDIS), diverging: table(DIVERGING) };

function gradient(scale) {
  const anchors = scale === "sequential" ? CIVIDIS : DIVERGING;
  return `linear-gradient(to right, ${anchors.map((rgb) => `rgb(${rgb.join(",")})`).join(",")})`;
}
