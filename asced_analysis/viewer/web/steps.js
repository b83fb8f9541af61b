// Steps of a run: asked for in blocks, kept, and the next block asked for before it is needed.

const MOST_BLOCKS = 48;

class Steps {
  constructor(viewer) {
    this.viewer = viewer;
    this.blocks = new Map();
  }

  block(place, step) {
    const size = this.viewer.about.steps_at_once;
    const first = Math.floor(step / size) * size;
    const key = [place.row, place.frame, place.signal, first].join(":");
    if (!this.blocks.has(key)) {
      const asked = this.viewer.ask("frames", { ...place, first });
      asked.catch(() => this.blocks.delete(key));
      this.blocks.set(key, asked);
      if (this.blocks.size > MOST_BLOCKS) this.blocks.delete(this.blocks.keys().next().value);
    }
    return this.blocks.get(key);
  }

  // Pictures of one step, by kind: {image, scale, low, high}.
  async at(place, step) {
    const block = await this.block(place, step);
    const found = {};
    for (const [kind, { scale, low, high }] of Object.entries(block.scales)) {
      const index = step - block.first;
      found[kind] = { image: slice(block[kind], index), scale, low: low[index], high: high[index] };
    }
    if (block.stop < this.viewer.about.steps) this.block(place, block.stop);
    return found;
  }
}
