// One picture with its caption, colour scale and overlays; clicks, drawn regions and brush strokes.

const OVERLAY = 448; // pixels of the overlay's longer side, so that outlines stay fine

class Stage {
  constructor(run, title, explanation, scale = null) {
    this.run = run;
    this.canvas = el("canvas", { className: "asced-pixels", width: 1, height: 1 });
    this.overlay = el("canvas", { className: "asced-overlay", width: 1, height: 1 });
    this.low = el("span");
    this.high = el("span");
    this.ramp = el("span", { className: "asced-ramp" });
    this.legend = el("div", { className: "asced-legend" }, this.low, this.ramp, this.high);
    this.scale(scale);
    this.title = el("figcaption", { title: explanation }, title);
    this.box = el("div", { className: "asced-box" }, this.canvas, this.overlay);
    this.element = el("figure", { className: "asced-stage" }, this.title, this.box, this.legend);
    this.canvas.setAttribute("role", "img");
    this.name(title);
    this.path = null;
    this.split = null; // share of the width at which a swipe divides two pictures
    this.overlay.addEventListener("pointerdown", (event) => this.begin(event));
    this.overlay.addEventListener("pointermove", (event) => this.move(event));
    this.overlay.addEventListener("pointerup", (event) => this.end(event));
    this.overlay.addEventListener("pointercancel", () => {
      this.path = null;
    });
  }

  name(title) {
    this.title.textContent = title;
    this.canvas.setAttribute("aria-label", title);
  }

  show(image, scale = "picture", low = null, high = null) {
    const missing = scale !== "picture" && low === null;
    this.box.classList.toggle("asced-missing", missing);
    paint(this.canvas, image, missing ? "picture" : scale);
    this.box.style.aspectRatio = `${image.shape[1]} / ${image.shape[0]}`;
    // few pixels are shown as squares, many are smoothed
    this.canvas.classList.toggle("asced-squares", Math.max(...image.shape.slice(0, 2)) <= 128);
    this.scale(scale === "picture" ? null : scale, missing ? null : low, high);
    this.outline();
  }

  // The legend keeps its room, and its colours where they are known, while numbers are awaited.
  scale(name, low = null, high = null) {
    this.legend.style.visibility = name ? "visible" : "hidden";
    if (!name) return;
    this.low.textContent = low === null ? "" : number(low, 2);
    this.high.textContent = low === null ? "" : number(high, 2);
    this.ramp.style.background = gradient(name);
  }

  clear() {
    this.scale(null);
    this.outline();
  }

  // Outlines of the flagged region, the mask by hand and the region under the chart.
  outline() {
    const { about } = this.run.viewer;
    const scale = OVERLAY / Math.max(about.width, about.height);
    const size = { width: Math.round(about.width * scale), height: Math.round(about.height * scale) };
    if (this.overlay.width !== size.width || this.overlay.height !== size.height) Object.assign(this.overlay, size);
    const context = this.overlay.getContext("2d");
    context.clearRect(0, 0, size.width, size.height);
    const { flagged, hand, region } = this.run.outlines;
    if (hand && this.run.overlays) {
      context.save();
      context.scale(size.width / about.width, size.height / about.height);
      context.fillStyle = `${BY_HAND}55`;
      for (let pixel = 0; pixel < hand.mask.data.length; pixel += 1) {
        if (hand.mask.data[pixel]) context.fillRect(pixel % about.width, Math.floor(pixel / about.width), 1, 1);
      }
      context.restore();
      drawBorder(context, hand.path, hand.mask.shape, size, { colour: BY_HAND, width: 3, halo: "#ffffffaa" });
    }
    if (flagged && this.run.overlays) drawBorder(context, flagged.path, flagged.mask.shape, size, { colour: FLAGGED, width: 3, halo: "#ffffffaa" });
    if (region) drawBorder(context, region.path, region.mask.shape, size, { colour: "#000", width: 2, halo: "#fff", dash: [7, 5] });
    if (this.split != null) {
      context.fillStyle = "#fff";
      context.fillRect(this.split * size.width - 2, 0, 4, size.height);
      context.fillStyle = "#000";
      context.fillRect(this.split * size.width - 1, 0, 2, size.height);
    }
    if (this.path?.length > 1) {
      context.beginPath();
      for (const [x, y] of this.path) context.lineTo((x * size.width) / about.width, (y * size.height) / about.height);
      context.strokeStyle = "#000";
      context.lineWidth = 2;
      context.stroke();
    }
  }

  at(event) {
    const box = this.overlay.getBoundingClientRect();
    const { about } = this.run.viewer;
    const x = ((event.clientX - box.left) / box.width) * about.width;
    const y = ((event.clientY - box.top) / box.height) * about.height;
    return [Math.min(about.width - 0.01, Math.max(0, x)), Math.min(about.height - 0.01, Math.max(0, y))];
  }

  begin(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    this.overlay.setPointerCapture(event.pointerId);
    this.path = [this.at(event)];
    if (this.run.tool !== "inspect") this.run.brush(this.path[0]);
  }

  move(event) {
    if (!this.path) return;
    const place = this.at(event);
    const from = this.path[this.path.length - 1];
    this.path.push(place);
    if (this.run.tool === "inspect") {
      this.outline();
      return;
    }
    const far = Math.hypot(place[0] - from[0], place[1] - from[1]);
    const strokes = Math.max(1, Math.ceil(far / Math.max(0.5, this.run.radius)));
    for (let stroke = 1; stroke <= strokes; stroke += 1) {
      const share = stroke / strokes;
      this.run.brush([from[0] + share * (place[0] - from[0]), from[1] + share * (place[1] - from[1])]);
    }
  }

  end(event) {
    if (!this.path) return;
    const path = [...this.path, this.at(event)];
    this.path = null;
    if (this.run.tool === "inspect") this.run.pickRegion(path);
    else this.run.brushed();
  }
}

function empty(about) {
  return { shape: [about.height, about.width], data: new Uint8Array(about.height * about.width) };
}

// Pixels whose centre lies inside a drawn outline; a click, or a line, gives its first pixel.
function filledPath(path, about) {
  const mask = empty(about);
  const xs = path.map(([x]) => x);
  const ys = path.map(([, y]) => y);
  const [left, right] = [Math.floor(Math.min(...xs)), Math.ceil(Math.max(...xs))];
  const [top, bottom] = [Math.floor(Math.min(...ys)), Math.ceil(Math.max(...ys))];
  let pixels = 0;
  for (let y = top; y < Math.min(bottom, about.height); y += 1) {
    for (let x = left; x < Math.min(right, about.width); x += 1) {
      if (!within(path, x + 0.5, y + 0.5)) continue;
      mask.data[y * about.width + x] = 1;
      pixels += 1;
    }
  }
  if (pixels < 2) {
    mask.data.fill(0);
    mask.data[Math.floor(path[0][1]) * about.width + Math.floor(path[0][0])] = 1;
    pixels = 1;
  }
  return { mask, pixels };
}

function within(path, x, y) {
  let inside = false;
  for (let here = 0, before = path.length - 1; here < path.length; before = here, here += 1) {
    const [x0, y0] = path[here];
    const [x1, y1] = path[before];
    if (y0 > y !== y1 > y && x < ((x1 - x0) * (y - y0)) / (y1 - y0) + x0) inside = !inside;
  }
  return inside;
}
