// Pictures on canvases: bytes become colours, outlines are drawn over them.

function paint(canvas, image, scale) {
  const [height, width, colours] = image.shape;
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const { data } = pixels;
  const lookup = SCALES[scale];
  for (let from = 0, to = 0; to < data.length; from += colours, to += 4) {
    const value = image.data[from];
    if (lookup) {
      data[to] = lookup[3 * value];
      data[to + 1] = lookup[3 * value + 1];
      data[to + 2] = lookup[3 * value + 2];
    } else if (colours === 3) {
      data[to] = value;
      data[to + 1] = image.data[from + 1];
      data[to + 2] = image.data[from + 2];
    } else {
      data[to] = value;
      data[to + 1] = value;
      data[to + 2] = value;
    }
    data[to + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
}

// One picture out of several that lie one after another.
function slice(images, place) {
  const shape = images.shape.slice(1);
  const size = shape.reduce((product, length) => product * length, 1);
  return { shape, data: images.data.subarray(place * size, (place + 1) * size) };
}

function difference(first, second) {
  const [height, width] = first.shape;
  const found = { shape: [height, width, 1], data: new Uint8Array(height * width) };
  const [own, other] = [first.shape[2], second.shape[2]];
  let largest = 0;
  for (let pixel = 0; pixel < height * width; pixel += 1) {
    let size = 0;
    for (let colour = 0; colour < own; colour += 1) {
      const there = second.data[pixel * other + Math.min(colour, other - 1)];
      size = Math.max(size, Math.abs(first.data[pixel * own + colour] - there));
    }
    found.data[pixel] = size;
    largest = Math.max(largest, size);
  }
  return { image: found, largest };
}

// The border of a mask as a path, in units of pixels of the mask.
function border(mask) {
  const [height, width] = mask.shape;
  const path = new Path2D();
  const inside = (y, x) => y >= 0 && x >= 0 && y < height && x < width && mask.data[y * width + x] > 0;
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      if (!mask.data[y * width + x]) continue;
      const sides = [
        [inside(y - 1, x), x, y, x + 1, y],
        [inside(y + 1, x), x, y + 1, x + 1, y + 1],
        [inside(y, x - 1), x, y, x, y + 1],
        [inside(y, x + 1), x + 1, y, x + 1, y + 1],
      ];
      for (const [hidden, x0, y0, x1, y1] of sides) {
        if (hidden) continue;
        path.moveTo(x0, y0);
        path.lineTo(x1, y1);
      }
    }
  }
  return path;
}

function anyPixel(mask) {
  return Boolean(mask) && mask.data.some((value) => value > 0);
}

function drawBorder(context, path, shape, size, style) {
  const scaled = new Path2D(); // the line's width stays the same at every size
  scaled.addPath(path, new DOMMatrix([size.width / shape[1], 0, 0, size.height / shape[0], 0, 0]));
  context.lineCap = "square";
  context.setLineDash(style.dash ?? []);
  if (style.halo) {
    context.strokeStyle = style.halo;
    context.lineWidth = style.width + 2;
    context.stroke(scaled);
  }
  context.strokeStyle = style.colour;
  context.lineWidth = style.width;
  context.stroke(scaled);
  context.setLineDash([]);
}
