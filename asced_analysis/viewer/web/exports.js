// Files to take along: the selection, labels and masks by hand, figures.

class Exports {
  constructor(viewer) {
    this.viewer = viewer;
    this.form = "png";
    const button = (text, what, title) => el("button", { type: "button", title, data: { what }, onclick: () => this.save(what) }, text);
    this.selection = button("Selection (CSV)", "selection", "Number, seed, score and labels of the selected runs");
    this.numbers = button("Run numbers", "numbers", "For asced select --runs");
    this.labels = button("Labels (CSV)", "labels", "For asced calibrate --labels");
    this.masks = button("Masks (npz)", "masks", "For asced replay --masks");
    this.one = button("This mask (PNG)", "mask", "For a folder of masks");
    const forms = [["png", "PNG"], ["svg", "SVG"], ["pdf", "PDF"]];
    this.figures = [button("Film strip", "film", "Predicted x0 and dynamics over the steps"), button("Dynamics", "dynamics", "The region under the chart against the bands")];
    if (viewer.about.replay) this.figures.push(button("Corrected", "paired_runs", "The run above its corrected version"));
    this.element = el(
      "section",
      { className: "asced-exports", ariaLabel: "export" },
      el("div", { className: "asced-bar" }, el("h2", {}, "Export"), this.selection, this.numbers, this.labels, this.masks, this.one),
      el("div", { className: "asced-bar" }, el("span", {}, "Figures"), choice("format", forms, this.form, (form) => { this.form = form; }), ...this.figures),
    );
  }

  refresh() {
    const { viewer } = this;
    const picked = viewer.gallery.picked.size;
    const labelled = Object.keys(viewer.labels).length;
    this.selection.textContent = picked ? `Selection of ${counted(picked)} (CSV)` : "Selection: flagged runs (CSV)";
    this.labels.textContent = labelled ? `${plural(labelled, "label")} (CSV)` : "Labels (CSV)";
    this.labels.disabled = !labelled;
    this.masks.textContent = viewer.masks.length ? `${plural(viewer.masks.length, "mask")} (npz)` : "Masks (npz)";
    this.masks.disabled = !viewer.masks.length;
    this.one.disabled = !viewer.masks.includes(viewer.columns.run[viewer.row]);
    this.figures[1].disabled = !viewer.run?.looked;
  }

  async save(what) {
    const { viewer } = this;
    const given = { what, form: this.form, row: viewer.row, level: viewer.levels.level ?? 0 };
    if (what === "selection" || what === "numbers") {
      given.rows = viewer.gallery.picked.size ? [...viewer.gallery.picked].sort((a, b) => a - b) : viewer.allFlagged();
    }
    if (what === "film" || what === "dynamics") {
      const { hand, flagged } = viewer.run.outlines;
      const { looked } = viewer.run;
      const shown = what === "dynamics" ? looked : hand ?? flagged;
      Object.assign(given, { signal: viewer.run.signal, frame: viewer.run.frame });
      if (shown) Object.assign(given, { region: base64(shown.mask.data), name: `run ${viewer.columns.run[viewer.row]}, ${looked?.name ?? ""}` });
    }
    const answer = await viewer.ask("export", given);
    const address = URL.createObjectURL(new Blob([answer.content.data], { type: answer.media }));
    const link = el("a", { href: address, download: answer.file });
    viewer.element.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
    viewer.tell(`Saved ${answer.file}.`);
  }
}
