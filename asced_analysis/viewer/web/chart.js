// Dynamics of a pixel or region against the population's bands, phases shaded.

const HEIGHT = 250;
const ROOM = { left: 64, right: 12, top: 22, bottom: 34 };

class Chart {
  constructor(viewer) {
    this.viewer = viewer;
    this.element = svg("svg", { class: "asced-chart", role: "img", "aria-label": "dynamics by step" });
    this.element.addEventListener("click", (event) => {
      const x = event.clientX - this.element.getBoundingClientRect().left;
      viewer.run.setStep(Math.round(this.stepAt(x)));
    });
    this.width = 460;
    this.known = null;
    this.curve = null;
    new ResizeObserver(([{ contentRect }]) => {
      if (contentRect.width < 50 || Math.abs(contentRect.width - this.width) < 1) return;
      this.width = contentRect.width; // drawn at its own size, so that its words stay legible
      this.draw();
    }).observe(this.element);
  }

  x(step) {
    const last = Math.max(1, this.viewer.about.steps - 1);
    return ROOM.left + (step / last) * (this.width - ROOM.left - ROOM.right);
  }

  stepAt(x) {
    const last = Math.max(1, this.viewer.about.steps - 1);
    return Math.min(last, Math.max(0, ((x - ROOM.left) / (this.width - ROOM.left - ROOM.right)) * last));
  }

  limits() {
    const values = [];
    const bands = this.known?.bands;
    if (bands) for (const row of [...bands.quantile.slice(1), bands.median]) values.push(...row);
    if (this.curve) values.push(...this.curve.value);
    const positive = values.filter((value) => value !== null && value > 0);
    if (!positive.length) return [-3, 0];
    const low = Math.log10(Math.min(...positive));
    const high = Math.log10(Math.max(...positive));
    return [low - 0.06 * (high - low + 0.1), high + 0.08 * (high - low + 0.1)];
  }

  draw() {
    const [low, high] = this.limits();
    const bottom = HEIGHT - ROOM.bottom;
    const y = (value) => bottom - ((Math.log10(Math.max(value ?? 0, 10 ** (low - 1))) - low) / (high - low)) * (bottom - ROOM.top);
    const clamped = (value) => Math.min(bottom, Math.max(ROOM.top, y(value)));
    this.element.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
    const parts = [...this.phases(bottom), ...this.axes(low, high, bottom, y), ...this.looks(bottom)];
    const bands = this.known?.bands;
    if (bands) {
      const { step, quantile, probability } = bands;
      for (let outer = 0; outer < Math.floor(probability.length / 2); outer += 1) {
        const [under, over] = [quantile[outer], quantile[probability.length - 1 - outer]];
        const there = step.map((k, i) => `${this.x(k)},${clamped(over[i])}`);
        const back = step.map((k, i) => `${this.x(k)},${clamped(under[i])}`).reverse();
        parts.push(svg("polygon", { points: [...there, ...back].join(" "), fill: BY_HAND, opacity: 0.16 + 0.12 * outer }));
      }
      parts.push(this.line(step, bands.median, clamped, BY_HAND, 2));
    }
    if (this.curve) {
      parts.push(this.line(this.curve.step, this.curve.value, clamped, FLAGGED, 2.5));
      this.curve.step.forEach((k, i) => parts.push(svg("circle", { cx: this.x(k), cy: clamped(this.curve.value[i]), r: 3, fill: FLAGGED })));
    }
    const now = this.x(this.viewer.run.step);
    parts.push(svg("line", { x1: now, x2: now, y1: ROOM.top, y2: bottom, stroke: "#222", "stroke-width": 1.5 }));
    this.element.replaceChildren(...parts);
  }

  line(steps, values, y, colour, width) {
    const points = steps.map((step, i) => `${this.x(step)},${y(values[i])}`).join(" ");
    return svg("polyline", { points, fill: "none", stroke: colour, "stroke-width": width });
  }

  phases(bottom) {
    const found = this.known?.phases;
    const last = this.viewer.about.steps - 1;
    if (!found || (found.mutation === null && found.refinement === null)) return [];
    const ends = [0, found.mutation ?? 0, found.refinement ?? last, last];
    const parts = [];
    let free = 0; // where the name before ends
    PHASES.forEach(([name, colour], place) => {
      if ((place === 0 && found.mutation === null) || (place === 2 && found.refinement === null)) return;
      const [left, right] = [this.x(ends[place]), this.x(ends[place + 1])];
      parts.push(svg("rect", { x: left, y: ROOM.top, width: Math.max(0, right - left), height: bottom - ROOM.top, fill: colour, opacity: 0.16 }));
      const start = Math.max(left + 2, free);
      free = start + 7 * name.length;
      const narrow = free > this.x(last) && place === 2;
      parts.push(narrow ? label(name, right, ROOM.top - 7, "end") : label(name, start, ROOM.top - 7, "start"));
    });
    for (const [low, high] of [found.mutation_interval, found.refinement_interval]) {
      if (low === null || high === null) continue;
      parts.push(svg("rect", { x: this.x(low), y: ROOM.top, width: Math.max(1, this.x(high) - this.x(low)), height: bottom - ROOM.top, fill: "#595959", opacity: 0.18 }));
    }
    return parts;
  }

  // Where the thresholds look: a bracket above the axis.
  looks(bottom) {
    const { window } = this.viewer.about;
    if (!window) return [];
    const [left, right] = [this.x(window[0]), this.x(window[1])];
    return [svg("polyline", { points: `${left},${bottom - 7} ${left},${bottom - 1} ${right},${bottom - 1} ${right},${bottom - 7}`, fill: "none", stroke: "#222", "stroke-width": 2 })];
  }

  axes(low, high, bottom, y) {
    const parts = [];
    const known = this.known?.bands || this.curve; // no numbers before there are any
    for (let power = Math.ceil(low); known && power <= high; power += 1) {
      const at = y(10 ** power);
      parts.push(svg("line", { x1: ROOM.left, x2: this.width - ROOM.right, y1: at, y2: at, stroke: "#ccd3d9" }));
      parts.push(label(power >= -3 && power <= 3 ? String(Number((10 ** power).toPrecision(1))) : `1e${power}`, ROOM.left - 6, at + 4, "end"));
    }
    const { steps } = this.viewer.about;
    const every = Math.max(1, Math.ceil(steps / (this.width / 36)));
    for (let step = 0; step < steps; step += every) parts.push(label(String(step), this.x(step), bottom + 15, "middle"));
    parts.push(label("step (0 = noise)", (this.width + ROOM.left) / 2, HEIGHT - 3, "middle"));
    const name = `|change of ${this.viewer.run.signal.replace("_", " ")}|`;
    const title = label(this.viewer.run.signal === "innovation" ? "|innovation|" : name, 0, 0, "middle");
    title.setAttribute("transform", `translate(13 ${(bottom + ROOM.top) / 2}) rotate(-90)`);
    parts.push(title);
    return parts;
  }
}

function label(text, x, y, anchor) {
  return svg("text", { x, y, "text-anchor": anchor, class: "asced-tick" }, text);
}
