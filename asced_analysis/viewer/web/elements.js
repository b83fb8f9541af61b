// Elements are built from text nodes only: what a store says stays text, whatever it holds.

const SVG = "http://www.w3.org/2000/svg";

function el(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  return filled(element, props, children);
}

function svg(tag, props = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(props)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function filled(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function choice(label, options, chosen, changed) {
  const select = el("select", { onchange: () => changed(select.value), ariaLabel: label });
  for (const [value, text] of options) {
    select.append(el("option", { value, selected: value === chosen }, text));
  }
  return select;
}

function field(label, control) {
  return el("label", { className: "asced-field" }, el("span", {}, label), control);
}

function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "-";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e5 || size < 1e-3)) return value.toExponential(1);
  return String(Number(value.toPrecision(digits)));
}

function percent(share) {
  if (share === null || share === undefined) return "-";
  const value = 100 * share;
  return `${value >= 10 || value === 0 ? value.toFixed(1) : value.toPrecision(2)} %`;
}

function counted(count) {
  return count.toLocaleString("en");
}

function plural(count, thing) {
  return `${counted(count)} ${thing}${count === 1 ? "" : "s"}`;
}

function base64(bytes) {
  let text = "";
  for (let start = 0; start < bytes.length; start += 32768) {
    text += String.fromCharCode(...bytes.subarray(start, start + 32768));
  }
  return btoa(text);
}

// The latest call wins; calls in between are dropped while one is on its way.
function latest(work) {
  let running = false;
  let next = null;
  return async function call(...given) {
    if (running) {
      next = given;
      return;
    }
    running = true;
    try {
      await work(...given);
    } finally {
      running = false;
      if (next) {
        const waiting = next;
        next = null;
        call(...waiting);
      }
    }
  };
}
