// One run: steps under a slider, its pictures, its corrected version, labels and a mask by hand.

const TITLES = {
  sample: ["Sample", "The sample entering the step"],
  predicted_x0: ["Predicted x0", "What the model takes the end to be, at this step"],
  weighted_score: ["Weighted score", "W = -sigma/alpha * eps, mean over channels; white is zero"],
  dynamics: ["Dynamics", "|D|: how much the signal changed since the step before, largest over channels"],
};
const LEGENDS = { weighted_score: "diverging", dynamics: "sequential" };
const SIGNAL_NAMES = { weighted_score: "weighted score", predicted_x0: "predicted x0", innovation: "innovation" };
const CORRECTED_MODES = [["corrected", "corrected version"], ["swipe", "swipe"], ["difference", "difference"]];

class Run {
  constructor(viewer) {
    this.viewer = viewer;
    const { about } = viewer;
    this.steps = new Steps(viewer);
    this.step = about.window ? about.window[1] : Math.floor(about.steps / 2);
    this.frame = 0;
    this.signal = about.signal;
    this.tool = "inspect";
    this.radius = Math.max(1, about.width / 20);
    this.overlays = true;
    this.outlines = { flagged: null, hand: null, region: null };
    this.mode = "corrected";
    this.swipe = 0.5;
    this.show = latest(() => this.showStep());
    this.askMask = latest(() => this.showMask());
    this.askCurve = latest(() => this.showCurve());
    this.build();
  }

  build() {
    const { about } = this.viewer;
    this.heading = el("h2", { className: "asced-heading" });
    this.details = el("dl", { className: "asced-details" });
    this.labels = new Map(
      [[true, "Broken"], [false, "Normal"], [null, "No label"]].map(([value, text]) => [
        value,
        el("button", { type: "button", onclick: () => this.say(value) }, text),
      ]),
    );
    const turn = (by, text, name) => el("button", { type: "button", ariaLabel: name, onclick: () => this.viewer.neighbour(by) }, text);
    this.slider = el("input", { type: "range", min: 0, max: about.steps - 1, value: this.step, ariaLabel: "step", className: "asced-steps", oninput: () => this.setStep(Number(this.slider.value)) });
    this.stepText = el("output", { className: "asced-step-text" });
    this.frameSlider = el("input", { type: "range", min: 0, max: about.frames - 1, value: 0, ariaLabel: "frame", oninput: () => this.setFrame(Number(this.frameSlider.value)) });
    this.stages = Object.fromEntries(about.kinds.map((kind) => [kind, new Stage(this, ...TITLES[kind], LEGENDS[kind])]));
    this.final = new Stage(this, "Final image", "What the run ended with");
    this.corrected = new Stage(this, "Corrected version", "The same run, corrected");
    this.swiper = el("input", { type: "range", min: 0, max: 100, value: 50, ariaLabel: "swipe", hidden: true, oninput: () => { this.swipe = this.swiper.value / 100; this.drawCorrected(); } });
    this.moder = choice("compare", CORRECTED_MODES, this.mode, (mode) => { this.mode = mode; this.drawCorrected(); });
    this.corrected.element.append(el("div", { className: "asced-bar" }, this.moder, this.swiper));
    this.corrected.element.hidden = !about.replay;
    this.corrected.element.classList.add("asced-uncorrected");
    this.chart = new Chart(this.viewer);
    this.chartText = el("figcaption", {}, "Dynamics: click a pixel or draw a region in a picture");
    const legend = el("div", { className: "asced-keys" }, key(BY_HAND, "all runs: median, 5 to 95 %, 1 to 99 %"), key(FLAGGED, "this pixel or region"), key("#595959", "phase boundaries, 95 %"), ...(about.window ? [key("#222", "where the thresholds look", "asced-window")] : []));
    this.runsText = el("p", { className: "asced-note asced-chart-note" }, "Counting the population ...");
    const chartFigure = el("figure", { className: `asced-stage asced-wide${about.replay ? "" : " asced-wider"}` }, this.chartText, this.chart.element, legend, this.runsText);
    this.element = el(
      "section",
      { className: "asced-run", ariaLabel: "one run" },
      el("div", { className: "asced-bar" }, this.heading, turn(-1, "Previous", "previous run"), turn(1, "Next", "next run"), el("span", { className: "asced-group", role: "group", ariaLabel: "label" }, ...this.labels.values()), this.details),
      el("div", { className: "asced-bar asced-steps-bar" }, field("Step", this.slider), this.stepText, ...(about.frames > 1 ? [field("Frame", this.frameSlider)] : [])),
      this.tools(),
      el("div", { className: "asced-stages" }, ...about.kinds.map((kind) => this.stages[kind].element), this.final.element, this.corrected.element, chartFigure),
    );
  }

  tools() {
    const { about } = this.viewer;
    const tools = [["inspect", "click or draw a region"], ["paint", "paint mask"], ["erase", "erase mask"]];
    const radius = el("input", { type: "range", min: 0.5, max: Math.max(2, about.width / 6), step: 0.5, value: this.radius, ariaLabel: "brush size", oninput: () => { this.radius = Number(radius.value); } });
    const overlays = el("input", { type: "checkbox", checked: true, onchange: () => { this.overlays = overlays.checked; this.outlineAll(); } });
    this.tooler = choice("tool", tools, this.tool, (tool) => { this.tool = tool; this.element.dataset.tool = tool; });
    this.fromFlagged = el("button", { type: "button", disabled: true, onclick: () => this.handMask(this.outlines.flagged.mask) }, "Mask from flagged");
    this.clear = el("button", { type: "button", disabled: true, onclick: () => this.handMask(null) }, "Drop mask");
    const signals = about.signals.map((name) => [name, SIGNAL_NAMES[name]]);
    return el(
      "div",
      { className: "asced-bar" },
      field("Dynamics of", choice("signal", signals, this.signal, (signal) => { this.signal = signal; this.show(); this.viewer.bandsChanged(); this.askCurve(); })),
      field("Tool", this.tooler),
      field("Brush", radius),
      this.fromFlagged,
      this.clear,
      el("label", { className: "asced-field" }, overlays, el("span", {}, "outlines")),
      el("span", { className: "asced-keys" }, key(FLAGGED, "flagged"), key(BY_HAND, "by hand")),
    );
  }

  get place() {
    return { row: this.viewer.row, frame: this.frame, signal: this.signal };
  }

  async open() {
    const { row } = this.viewer;
    this.outlines = { flagged: null, hand: null, region: this.outlines.region };
    this.show();
    const answer = await this.viewer.ask("run", { row });
    if (row !== this.viewer.row) return;
    this.answer = answer;
    this.heading.textContent = `Run ${answer.run}`;
    this.details.replaceChildren(...answer.details.flatMap(([name, value]) => [el("dt", {}, name), el("dd", { title: value }, value)]));
    this.final.show(answer.image);
    if (answer.hand) this.setHand(answer.hand);
    this.drawCorrected();
    this.drawLabel();
    this.askMask();
    if (this.outlines.region) this.askCurve();
  }

  setStep(step) {
    this.step = step;
    this.viewer.moved();
    this.slider.value = step;
    this.show();
    this.chart.draw();
  }

  setFrame(frame) {
    this.frame = frame;
    this.show();
    this.askMask();
    if (this.outlines.region) this.askCurve();
  }

  async showStep() {
    const { place, step } = this;
    const found = await this.steps.at(place, step);
    if (place.row !== this.viewer.row) return;
    for (const [kind, { image, scale, low, high }] of Object.entries(found)) this.stages[kind].show(image, scale, low, high);
    this.stepText.textContent = `${step} of ${this.viewer.about.steps - 1}`;
    this.element.dataset.painted = `${this.viewer.columns.run[place.row]}:${step}`;
  }

  async showMask() {
    const { row } = this.viewer;
    const { level } = this.viewer.levels;
    let mask = null;
    if (this.viewer.about.masks && level !== null) mask = (await this.viewer.ask("mask", { row, level, frame: this.frame })).mask;
    else if (this.answer?.corrected_mask) mask = this.answer.corrected_mask;
    if (row !== this.viewer.row) return;
    this.outlines.flagged = anyPixel(mask) ? { mask, path: border(mask) } : null;
    this.fromFlagged.disabled = !this.outlines.flagged;
    this.outlineAll();
    if (!this.outlines.region) this.askCurve();
  }

  pickRegion(path) {
    const { mask, pixels } = filledPath(path, this.viewer.about);
    const [x, y] = path[0].map(Math.floor);
    this.outlines.region = { mask, path: border(mask), name: pixels === 1 ? `pixel (${x}, ${y})` : `region of ${pixels} pixels` };
    this.outlineAll();
    this.askCurve();
  }

  async showCurve() {
    const { flagged } = this.outlines;
    // until somebody picks a place, the flagged region is what is looked at
    const region = this.outlines.region ?? (flagged && { ...flagged, name: "flagged region" });
    this.looked = region;
    this.viewer.exports.refresh();
    const { row } = this.viewer;
    if (!region) {
      this.chart.curve = null;
      this.chartText.textContent = "Dynamics: click a pixel or draw a region in a picture";
      this.chart.draw();
      return;
    }
    const answer = await this.viewer.ask("curve", { ...this.place, region: base64(region.mask.data) });
    if (row !== this.viewer.row) return;
    this.chart.curve = answer;
    this.chartText.textContent = `Dynamics of run ${this.viewer.columns.run[row]}, ${region.name}`;
    this.chart.draw();
  }

  drawCorrected() {
    const { image, corrected } = this.answer;
    this.swiper.hidden = !corrected || this.mode !== "swipe";
    this.corrected.box.classList.toggle("asced-missing", !corrected);
    this.moder.hidden = !corrected;
    if (!corrected) {
      this.corrected.name("Not corrected");
      this.corrected.split = null;
      this.corrected.clear();
      return;
    }
    const names = { corrected: "Corrected version", swipe: "Swipe: as sampled | corrected", difference: "Difference of the two images" };
    this.corrected.name(names[this.mode]);
    if (this.mode === "difference") {
      const { image: shown, largest } = difference(image, corrected);
      const stretched = { shape: shown.shape, data: shown.data.map((value) => (255 * value) / Math.max(1, largest)) };
      this.corrected.show(stretched, "sequential", 0, largest);
    } else if (this.mode === "swipe") this.corrected.show(joined(image, corrected, this.swipe));
    else this.corrected.show(corrected);
    this.corrected.split = this.mode === "swipe" ? this.swipe : null;
    this.corrected.outline();
  }

  outlineAll() {
    for (const stage of [...Object.values(this.stages), this.final, this.corrected]) stage.outline();
  }

  brush([x, y]) {
    const { about } = this.viewer;
    const mask = this.outlines.hand?.mask ?? empty(about);
    const value = this.tool === "paint" ? 1 : 0;
    const reach = this.radius;
    for (let row = Math.max(0, Math.floor(y - reach)); row < Math.min(about.height, y + reach); row += 1) {
      for (let column = Math.max(0, Math.floor(x - reach)); column < Math.min(about.width, x + reach); column += 1) {
        if (Math.hypot(column + 0.5 - x, row + 0.5 - y) <= Math.max(0.71, reach)) mask.data[row * about.width + column] = value;
      }
    }
    this.setHand(mask);
  }

  brushed() {
    return this.handMask(this.outlines.hand?.mask ?? empty(this.viewer.about));
  }

  setHand(mask) {
    this.outlines.hand = mask ? { mask, path: border(mask) } : null;
    this.clear.disabled = !mask;
    this.outlineAll();
  }

  async handMask(mask) {
    const own = mask ? { shape: mask.shape, data: mask.data.slice() } : null;
    this.setHand(own);
    this.viewer.labelled(await this.viewer.ask("edit", { row: this.viewer.row, mask: own ? base64(own.data) : null }));
  }

  async say(broken) {
    this.viewer.labelled(await this.viewer.ask("label", { row: this.viewer.row, broken }));
  }

  drawLabel() {
    const said = this.viewer.labels[this.viewer.columns.run[this.viewer.row]] ?? null;
    for (const [value, button] of this.labels) button.setAttribute("aria-pressed", String(value === said));
  }
}

function key(colour, text, className = "") {
  const swatch = el("i", { className });
  swatch.style.background = colour;
  return el("span", { className: "asced-key" }, swatch, text);
}

// Left of the line the one, right of it the other.
function joined(first, second, share) {
  const [height, width] = first.shape;
  const found = { shape: [height, width, 3], data: new Uint8Array(height * width * 3) };
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const from = (x + 0.5) / width < share ? first : second;
      const colours = from.shape[2];
      for (let c = 0; c < 3; c += 1) found.data[3 * (y * width + x) + c] = from.data[colours * (y * width + x) + Math.min(c, colours - 1)];
    }
  }
  return found;
}
