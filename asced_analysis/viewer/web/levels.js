// The threshold: a slider over the scores' histogram, and what would be flagged, at once.

const BARS = 64;

class Levels {
  constructor(viewer) {
    this.viewer = viewer;
    this.level = null;
    this.ends = [0, 1];
    this.chart = el("canvas", { className: "asced-histogram", width: 480, height: 56, role: "img", ariaLabel: "histogram of the runs' scores" });
    this.slider = el("input", { type: "range", min: 0, max: 1000, step: 1, ariaLabel: "threshold", oninput: () => this.set(this.ends[0] + (this.slider.value / 1000) * (this.ends[1] - this.ends[0])) });
    this.entry = el("input", { type: "number", step: "any", ariaLabel: "level", onchange: () => this.set(Number(this.entry.value)) });
    this.back = el("button", { type: "button", onclick: () => this.set(this.first) }, viewer.about.thresholds ? "Calibrated level" : "First level");
    this.count = el("strong", { className: "asced-count", role: "status" });
    this.rate = el("span", { className: "asced-rate" });
    this.left = el("span");
    this.right = el("span");
    this.note = el("p", { className: "asced-note" });
    this.refine = latest(() => this.ask());
    this.element = el(
      "section",
      { className: "asced-levels", ariaLabel: "threshold" },
      el("div", { className: "asced-bar" }, el("h2", {}, "Threshold"), this.entry, this.back),
      this.chart,
      this.slider,
      el("div", { className: "asced-ends" }, this.left, el("span", {}, "score (bars: runs, logarithmic)"), this.right),
      el("p", {}, this.count, " ", this.rate),
      this.note,
    );
  }

  // New scores: ends of the slider, histogram, counts.
  scored(level) {
    const known = this.viewer.scores.filter((score) => Number.isFinite(score));
    this.sorted = Float32Array.from(known).sort();
    if (!this.sorted.length) {
      this.count.textContent = "No run is scored yet.";
      return;
    }
    const own = this.level;
    if (own === null || (this.first === own && level !== null)) this.level = level;
    this.first = level;
    const [low, high] = [this.sorted[0], this.sorted[this.sorted.length - 1]];
    const span = high - low || 1;
    this.ends = [Math.min(low, level) - 0.01 * span, Math.max(high, level) + 0.01 * span];
    this.left.textContent = number(this.ends[0], 3);
    this.right.textContent = number(this.ends[1], 3);
    this.bars = new Array(BARS).fill(0);
    for (const score of this.sorted) this.bars[this.bar(score)] += 1;
    this.set(this.level);
  }

  bar(score) {
    return Math.min(BARS - 1, Math.max(0, Math.floor((BARS * (score - this.ends[0])) / (this.ends[1] - this.ends[0]))));
  }

  // How many known scores lie above the level: the array is sorted.
  above(level) {
    let [low, high] = [0, this.sorted.length];
    const wanted = Math.fround(level);
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.sorted[middle] > wanted) high = middle;
      else low = middle + 1;
    }
    return this.sorted.length - low;
  }

  set(level) {
    if (!this.sorted?.length || !Number.isFinite(level)) return;
    this.level = level;
    this.slider.value = (1000 * (level - this.ends[0])) / (this.ends[1] - this.ends[0]);
    this.entry.value = number(level, 4);
    const flagged = this.above(level);
    this.count.textContent = `Flagged: ${counted(flagged)} of ${counted(this.sorted.length)} runs.`;
    this.count.dataset.flagged = flagged;
    this.rate.textContent = `False-alarm rate ${percent(flagged / this.sorted.length)}`;
    this.draw();
    this.refine();
    this.viewer.levelChanged();
  }

  async ask() {
    const { level } = this;
    const answer = await this.viewer.ask("rate", { level });
    if (level !== this.level) return;
    const labelled = answer.normal.runs > 0;
    const of = labelled ? answer.normal : answer.all;
    if (of.rate === null) return;
    const [low, high] = of.interval;
    const whom = labelled ? `of ${counted(of.runs)} runs labelled normal by hand` : "counting every run as normal";
    let text = `False-alarm rate ${percent(of.rate)} (95 %: ${percent(low)} to ${percent(high)}), ${whom}.`;
    if (answer.broken.runs) text += ` Found ${answer.broken.flagged} of ${answer.broken.runs} labelled broken.`;
    this.rate.textContent = text;
    this.note.textContent = this.promise(level);
  }

  promise(level) {
    const { thresholds, source } = this.viewer.about;
    if (!thresholds) {
      return source === "replay"
        ? "Scores are those of the replay's thresholds."
        : "No thresholds given: runs are scored by how far their features lie from the others', and no rate is promised. Calibrate for a promise.";
    }
    if (level !== this.first) return "No promise holds for a level that was chosen by looking at these runs.";
    const measured = thresholds.measured === null ? "" : `; measured ${percent(thresholds.measured)} on ${counted(thresholds.report)} held-out ${thresholds.unit}s`;
    return `Calibrated level (${thresholds.variant}): at most ${percent(thresholds.promised)} of ${thresholds.population} promised${measured}.`;
  }

  draw() {
    const context = this.chart.getContext("2d");
    const { width, height } = this.chart;
    context.clearRect(0, 0, width, height);
    const most = Math.log1p(Math.max(...this.bars));
    const cut = this.bar(this.level);
    this.bars.forEach((count, place) => {
      const size = (Math.log1p(count) / most) * (height - 4);
      context.fillStyle = place > cut ? FLAGGED : "#9aa7b1";
      context.fillRect((place * width) / BARS + 0.5, height - size, width / BARS - 1, size);
    });
    const at = ((this.level - this.ends[0]) / (this.ends[1] - this.ends[0])) * width;
    context.fillStyle = "#222";
    context.fillRect(at - 1, 0, 2, height);
  }
}
