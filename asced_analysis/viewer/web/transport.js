// Requests go out, a JSON header and typed arrays come back: by HTTP, or by a notebook's widget.

const ARRAY_TYPES = {
  uint8: Uint8Array,
  int32: Int32Array,
  float32: Float32Array,
  float64: Float64Array,
};

function withArrays(header, bytes) {
  const answer = { ...header };
  let offset = 0;
  for (const { name, dtype, shape } of header.arrays) {
    const Type = ARRAY_TYPES[dtype];
    const count = shape.reduce((product, size) => product * size, 1);
    const length = count * Type.BYTES_PER_ELEMENT;
    const own = bytes.slice(offset, offset + length); // a copy, so that it is aligned
    answer[name] = { data: new Type(own.buffer), shape };
    offset += length;
  }
  return answer;
}

// Requests go to a route under the page: "api", or "beside" of a second store.
function httpTransport(under) {
  return {
    async ask(request, given = {}) {
      const response = await fetch(`${under}/${request}`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(given),
      });
      if (!response.ok) {
        const text = await response.text();
        let why = text;
        try {
          why = JSON.parse(text).error;
        } catch {
          // not one of our own errors: shown as it came
        }
        throw new Error(why);
      }
      const bytes = new Uint8Array(await response.arrayBuffer());
      const length = new DataView(bytes.buffer).getUint32(0, true);
      const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
      return withArrays(header, bytes.subarray(4 + length));
    },
    close() {},
  };
}

function widgetTransport(model) {
  const waiting = new Map();
  // several views of one widget hear each other's answers: numbers start at random
  let last = Math.floor(Math.random() * 2 ** 40);
  const heard = (message, buffers) => {
    const pending = waiting.get(message.number);
    if (!pending) return;
    waiting.delete(message.number);
    if (message.error !== undefined) {
      pending.reject(new Error(message.error));
      return;
    }
    const view = buffers[0];
    const bytes = new Uint8Array(view.buffer ?? view, view.byteOffset ?? 0, view.byteLength);
    pending.resolve(withArrays(message.header, bytes));
  };
  model.on("msg:custom", heard);
  return {
    ask(request, given = {}) {
      last += 1;
      const number = last;
      return new Promise((resolve, reject) => {
        waiting.set(number, { resolve, reject });
        model.send({ number, request, given });
      });
    },
    close() {
      model.off("msg:custom", heard);
    },
  };
}
