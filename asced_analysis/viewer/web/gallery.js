// The gallery: a page of small pictures, sorted and filtered here, read for this page only.

const SORTS = [
  ["anomaly", "anomaly"],
  ["run", "run"],
  ["seed", "seed"],
  ["label", "label"],
];

class Gallery {
  constructor(viewer) {
    this.viewer = viewer;
    const { about } = viewer;
    this.sort = "anomaly";
    this.descending = true;
    this.filter = "all";
    this.found = null;
    this.page = 0;
    this.touched = false;
    this.picked = new Set();
    this.order = [];
    this.cards = new Map();
    const sorts = [...SORTS];
    if (about.replay) sorts.push(["change", "change"]);
    if (about.distance) sorts.push(["distance", about.distance]);
    const worst = new Set(["anomaly", "change", "distance"]);
    this.sorter = choice("sort by", sorts, this.sort, (value) => this.sortBy(value, worst.has(value)));
    if (about.judge) this.sorter.title = `${about.distance}: ${about.judge}`;
    this.direction = el("button", { type: "button", onclick: () => this.sortBy(this.sort, !this.descending) });
    const filters = [
      ["all", "all runs"],
      ["flagged", "flagged"],
      ["picked", "selected"],
      ["broken", "labelled broken"],
      ["normal", "labelled normal"],
    ];
    this.filterer = choice("show", filters, this.filter, (value) => this.show(value));
    this.text = el("input", { type: "search", placeholder: "run number or prompt", ariaLabel: "find", onchange: () => this.search() });
    this.again = el("button", { type: "button", className: "asced-again", hidden: true, onclick: () => this.refresh() }, "New scores: sort again");
    this.grid = el("div", { className: "asced-grid", role: "list" });
    this.where = el("span", { className: "asced-where", role: "status" });
    const turn = (label, by, text) => el("button", { type: "button", ariaLabel: label, onclick: () => this.turn(by) }, text);
    this.element = el(
      "section",
      { className: "asced-gallery", ariaLabel: "gallery of runs" },
      el("div", { className: "asced-bar" }, field("Sort by", this.sorter), this.direction, field("Show", this.filterer), field("Find", this.text), this.again),
      this.grid,
      el(
        "div",
        { className: "asced-bar asced-pager" },
        turn("first page", -Infinity, "|<"),
        turn("page before", -1, "<"),
        this.where,
        turn("next page", 1, ">"),
        turn("last page", Infinity, ">|"),
        el("button", { type: "button", onclick: () => this.pickPage(), title: "Select every run of this page" }, "Select page"),
        el("button", { type: "button", onclick: () => this.pickNone() }, "Select none"),
      ),
    );
  }

  key(row) {
    const { columns, scores } = this.viewer;
    if (this.sort === "anomaly") return scores ? scores[row] : NaN;
    return columns[this.sort][row];
  }

  sortBy(sort, descending) {
    this.sort = sort;
    this.descending = descending;
    this.sorter.value = sort;
    this.page = 0;
    this.refresh();
  }

  show(filter) {
    this.filter = filter;
    this.page = 0;
    this.touched = true;
    this.refresh();
  }

  async search() {
    const text = this.text.value.trim();
    this.found = null;
    if (/^\d+$/.test(text)) {
      const row = this.viewer.rowOf(Number(text));
      this.found = new Set(row === undefined ? [] : [row]);
      if (row !== undefined) this.viewer.open(row);
    } else if (text) {
      const answer = await this.viewer.ask("find", { text });
      this.found = new Set(answer.rows.data);
    }
    this.page = 0;
    this.touched = true;
    await this.refresh();
  }

  wanted(row) {
    const { viewer } = this;
    if (this.found && !this.found.has(row)) return false;
    if (this.filter === "flagged") return viewer.flagged(row);
    if (this.filter === "picked") return this.picked.has(row);
    if (this.filter === "all") return true;
    return viewer.labels[viewer.columns.run[row]] === (this.filter === "broken");
  }

  refresh() {
    this.again.hidden = true;
    this.direction.textContent = this.descending ? "high first" : "low first";
    const rows = [];
    for (let row = 0; row < this.viewer.about.runs; row += 1) if (this.wanted(row)) rows.push(row);
    const sign = this.descending ? -1 : 1;
    const keys = new Map(rows.map((row) => [row, this.key(row)]));
    rows.sort((a, b) => {
      const [first, second] = [keys.get(a), keys.get(b)];
      if (Number.isNaN(first) || Number.isNaN(second)) return Number.isNaN(first) - Number.isNaN(second) || a - b;
      return sign * (first - second) || a - b;
    });
    this.order = rows;
    return this.draw();
  }

  // Scores came in: the order follows while nobody has begun to look around.
  scored(complete) {
    if (this.sort === "anomaly" || this.sort === "distance") {
      if (!this.touched) this.refresh();
      else if (complete) this.again.hidden = false;
    }
    this.mark();
  }

  turn(by) {
    const last = Math.max(0, Math.ceil(this.order.length / this.viewer.about.page_size) - 1);
    this.page = Math.min(last, Math.max(0, this.page + by));
    this.touched = true;
    this.draw();
  }

  visible() {
    const size = this.viewer.about.page_size;
    return this.order.slice(this.page * size, (this.page + 1) * size);
  }

  async draw() {
    const rows = this.visible();
    const { about } = this.viewer;
    const pages = Math.max(1, Math.ceil(this.order.length / about.page_size));
    this.where.textContent = this.order.length
      ? `${counted(this.order.length)} runs, page ${counted(this.page + 1)} of ${counted(pages)}`
      : "no such run";
    this.cards = new Map(rows.map((row) => [row, this.card(row)]));
    this.grid.replaceChildren(...this.cards.values());
    this.mark();
    if (!rows.length) return;
    const answer = await this.viewer.ask("gallery", { rows });
    for (const row of rows) {
      const card = this.cards.get(row);
      if (card) paint(card.querySelector("canvas"), answer[row], "picture");
    }
    if (this.cards.has(rows[0])) this.grid.dataset.painted = rows.join(",");
  }

  card(row) {
    const run = this.viewer.columns.run[row];
    const canvas = el("canvas", { width: 1, height: 1, ariaLabel: `run ${run}` });
    const name = el("span", { className: "asced-name" }, `${run}`);
    const more = el("span", { className: "asced-more" });
    const clicked = (event) => {
      this.touched = true;
      if (event.shiftKey || event.ctrlKey || event.metaKey) this.pick(row);
      else this.viewer.open(row);
    };
    const title = "Click to look, Shift-click to select";
    return el("button", { type: "button", className: "asced-card", role: "listitem", title, data: { row }, onclick: clicked }, canvas, el("b", { className: "asced-badge", hidden: true }), el("span", { className: "asced-caption" }, name, more));
  }

  pick(row) {
    if (!this.picked.delete(row)) this.picked.add(row);
    this.mark();
  }

  pickPage() {
    for (const row of this.visible()) this.picked.add(row);
    this.mark();
  }

  pickNone() {
    this.picked.clear();
    this.mark();
  }

  // What is written on the cards: score or sort key, flagged, labelled, selected.
  mark() {
    const { viewer } = this;
    for (const [row, card] of this.cards) {
      const label = viewer.labels[viewer.columns.run[row]];
      card.classList.toggle("asced-flagged", viewer.flagged(row));
      card.classList.toggle("asced-picked", this.picked.has(row));
      card.classList.toggle("asced-open", viewer.row === row);
      const key = this.sort === "run" ? (viewer.scores ? viewer.scores[row] : NaN) : this.key(row);
      card.querySelector(".asced-more").textContent = Number.isNaN(key) ? "" : number(key);
      const badge = card.querySelector(".asced-badge");
      badge.hidden = label === undefined;
      badge.textContent = label ? "B" : "N";
      badge.title = label ? "labelled broken" : "labelled normal";
    }
    viewer.exports?.refresh();
  }
}
