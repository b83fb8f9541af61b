// Everything together: asks what there is, builds the page, follows the work behind it.

class Viewer {
  constructor(element, transport) {
    this.leader = true; // of two, the one whose most suspicious run both begin with
    this.beside = null; // another viewer that shows the same run and moment
    this.followed = false;
    this.settled = false;
    this.chosen = false; // someone has opened a run, here or beside
    this.element = element;
    this.transport = transport;
    this.labels = {};
    this.masks = [];
    this.scores = null;
    this.row = 0;
    this.done = -1;
    this.closed = false;
    this.message = el("span", { className: "asced-message", role: "status" });
    this.bar = el("progress", { max: 1, value: 0, hidden: true, ariaLabel: "runs scored" });
    element.classList.add("asced-viewer");
    element.replaceChildren(el("p", { className: "asced-note" }, "Opening ..."));
  }

  async ask(request, given) {
    try {
      const answer = await this.transport.ask(request, given);
      this.message.classList.remove("asced-error");
      return answer;
    } catch (error) {
      if (!this.closed) this.tell(String(error.message ?? error), true);
      throw error;
    }
  }

  tell(text, wrong = false) {
    this.message.textContent = text;
    this.message.classList.toggle("asced-error", wrong);
  }

  async start() {
    const [about, columns] = await Promise.all([this.ask("about"), this.ask("table")]);
    this.about = about;
    this.columns = Object.fromEntries(columns.arrays.map(({ name }) => [name, columns[name].data]));
    this.places = new Map(Array.from(this.columns.run, (run, row) => [run, row]));
    this.levels = new Levels(this);
    this.run = new Run(this);
    this.gallery = new Gallery(this);
    this.exports = new Exports(this);
    const shape = [about.channels, about.height, about.width].join(" x ");
    const facts = [plural(about.runs, "run"), plural(about.steps, "step"), about.frames > 1 ? `${about.frames} frames of ${shape}` : shape, about.pipeline, about.scheduler];
    this.element.replaceChildren(
      el("header", { className: "asced-header" }, el("h1", {}, about.name), el("span", {}, facts.filter(Boolean).join(" · ")), this.bar, this.message),
      el("main", { className: "asced-main" }, el("div", { className: "asced-left" }, this.levels.element, this.gallery.element), el("div", { className: "asced-right" }, this.run.element, this.exports.element)),
    );
    if (this.element.ownerDocument.body.classList.contains("asced-page")) document.title = `${about.name} - runs`;
    await this.poll();
    await this.gallery.refresh();
    this.settled = this.done >= about.runs;
    this.begin();
    this.bandsChanged();
    this.follow();
  }

  // Scores, bands and phases grow behind the page: look again until they are complete.
  async follow() {
    while (!this.closed) {
      await new Promise((resolve) => setTimeout(resolve, this.pending ? 700 : 5000));
      if (this.closed) return;
      if (!this.pending) continue;
      try {
        await this.poll();
        await this.askBands();
      } catch {
        return; // the server is gone, and the page has said so
      }
    }
  }

  async poll() {
    const answer = await this.ask("scores", { done: this.done });
    this.pending = answer.pending.length > 0;
    this.bar.hidden = answer.done >= answer.of;
    this.bar.value = answer.done / answer.of;
    if (answer.errors.length) this.tell(answer.errors.join("; "), true);
    else if (answer.done < answer.of) this.tell(`Scoring: ${counted(answer.done)} of ${counted(answer.of)} runs`);
    else if (this.message.textContent.startsWith("Scoring")) this.tell("All runs are scored.");
    if (!answer.score) return;
    if (answer.distance) this.columns.distance = answer.distance.data;
    this.done = answer.done;
    this.scores = answer.score.data;
    this.levels.scored(answer.level);
    if (this.gallery.order.length) this.gallery.scored(answer.done >= answer.of);
    // the most suspicious run, as soon as that is known, while nobody has begun to look around
    if (!this.settled && this.run && this.gallery.order.length && answer.done >= answer.of) {
      this.settled = true;
      if (!this.gallery.touched) this.begin();
    }
  }

  // Open the most suspicious run, or the one that the viewer beside begins with, unless someone has chosen another meanwhile.
  begin() {
    if (this.chosen) return;
    const led = this.leader || !this.beside?.run ? undefined : this.rowOf(this.beside.columns.run[this.beside.row]);
    this.open(led ?? this.gallery.order[0] ?? 0, false);
  }

  async bandsChanged() {
    this.pending = true;
    await this.askBands();
  }

  async askBands() {
    const { signal } = this.run;
    const answer = await this.ask("bands", { signal });
    if (signal !== this.run.signal) return;
    this.run.chart.known = answer;
    const runs = answer.bands ? `Bands: every pixel of ${counted(answer.bands.runs)} runs.` : "Counting the population ...";
    const phases = answer.phases ? ` Phases, of ${counted(answer.phases.runs)} runs: ${answer.phases.verdict}` : "";
    this.run.runsText.textContent = runs + phases;
    this.run.chart.draw();
  }

  flagged(row) {
    return this.scores !== null && this.levels.level !== null && this.scores[row] > Math.fround(this.levels.level);
  }

  allFlagged() {
    const rows = [];
    for (let row = 0; row < this.about.runs; row += 1) if (this.flagged(row)) rows.push(row);
    return rows;
  }

  levelChanged() {
    if (!this.gallery) return;
    if (this.gallery.filter === "flagged") this.gallery.refresh();
    else this.gallery.mark();
    this.run.askMask();
  }

  labelled(answer) {
    this.labels = Object.fromEntries(Object.entries(answer.labels).map(([run, broken]) => [Number(run), broken]));
    this.masks = answer.masks;
    this.gallery.mark();
    this.run.drawLabel();
    this.levels.refine();
  }

  rowOf(run) {
    return this.places.get(run);
  }

  open(row, chosen = true) {
    this.row = row;
    if (chosen) this.chosen = this.gallery.touched = true;
    this.gallery.mark();
    if (chosen || this.leader) this.lead((other) => {
      const there = other.rowOf(this.columns.run[row]);
      if (there === undefined) other.tell(`Run ${this.columns.run[row]} is not in this store.`, true);
      else if (there !== other.row || other.run.answer === undefined) other.open(there, chosen);
    });
    return this.run.open();
  }

  // A step was chosen: the viewer beside goes to the same share of its own steps.
  moved() {
    const share = this.run.step / Math.max(1, this.about.steps - 1);
    this.lead((other) => other.run.setStep(Math.round(share * (other.about.steps - 1))));
  }

  lead(go) {
    const other = this.beside;
    if (!other?.run || !other.gallery || other.followed || this.followed) return;
    other.followed = true;
    try {
      go(other);
    } finally {
      other.followed = false;
    }
  }

  neighbour(by) {
    const { order } = this.gallery;
    if (!order.length) return;
    const place = Math.max(0, order.indexOf(this.row)) + by;
    this.open(order[Math.min(order.length - 1, Math.max(0, place))]);
  }

  close() {
    this.closed = true;
    this.transport.close();
  }
}

function mount(element, transport) {
  const viewer = new Viewer(element, transport);
  viewer.start().catch((error) => {
    element.replaceChildren(el("p", { className: "asced-message asced-error" }, String(error.message ?? error)));
    throw error;
  });
  return viewer;
}

function renderWidget({ model, el: element }) {
  const viewer = mount(element, widgetTransport(model));
  return () => viewer.close();
}

// One viewer, or two side by side that follow each other.
if (typeof document !== "undefined" && document.body?.classList.contains("asced-page")) {
  const { body } = document;
  const add = (under) => mount(body.appendChild(document.createElement("div")), httpTransport(under));
  const first = add("api");
  if (body.dataset.beside) {
    body.classList.add("asced-pair");
    first.beside = add("beside");
    first.beside.beside = first;
    first.beside.leader = false;
  }
}
