// A curve over iterations: drawn as SVG, read with the mouse or with arrow keys. Points are [iteration, value].
const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [340, 150, 44, 8, 8, 20];

function svg(name, attributes = {}, text = "") {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}

export function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  return size !== 0 && (size < 0.001 || size >= 10_000) ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}

// `lines`: name -> points. `open(iteration)` is called for Enter and for a click.
export class Curve {
  constructor(title, open) {
    this.title = title;
    this.lines = {};
    this.at = null;
    this.element = document.createElement("figure");
    this.element.className = "card curve-card";
    const caption = document.createElement("figcaption");
    caption.textContent = title;
    this.chart = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, tabindex: 0, role: "img" });
    this.readout = document.createElement("p");
    this.readout.className = "readout";
    this.element.append(caption, this.chart, this.readout);
    this.chart.addEventListener("pointermove", (event) => this.point(event));
    this.chart.addEventListener("pointerleave", () => this.show(null));
    this.chart.addEventListener("click", () => { if (this.at !== null) open(this.at); });
    this.chart.addEventListener("keydown", (event) => this.key(event, open));
    this.chart.addEventListener("blur", () => this.show(null));
  }

  draw(lines) {
    this.lines = lines;
    const points = Object.values(lines).flat();
    this.element.hidden = points.length === 0;
    if (this.element.hidden) return;
    this.iterations = [...new Set(points.map(([iteration]) => iteration))].sort((a, b) => a - b);
    const values = points.map(([, value]) => value);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const [first, last] = [this.iterations[0], this.iterations.at(-1)];
    const span = high - low || Math.abs(high) || 1;
    this.x = (iteration) => LEFT + ((iteration - first) / (last - first || 1)) * (WIDTH - LEFT - RIGHT);
    const y = (value) => TOP + (1 - (value - low) / span) * (HEIGHT - TOP - BOTTOM);
    const drawn = [low, ...(high > low ? [high] : [])].flatMap((value) => [
      svg("line", { class: "grid-line", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }),
      svg("text", { x: LEFT - 4, y: y(value) + 4, "text-anchor": "end" }, short(value)),
    ]);
    drawn.push(svg("text", { x: LEFT, y: HEIGHT - 5 }, String(first)));
    drawn.push(svg("text", { x: WIDTH - RIGHT, y: HEIGHT - 5, "text-anchor": "end" }, String(last)));
    Object.values(lines).forEach((line, number) => {  // runs.css has colours for four
      const at = line.map(([iteration, value]) => `${this.x(iteration).toFixed(1)},${y(value).toFixed(1)}`);
      if (at.length === 1) {  // a single point is no line
        const [[iteration, value]] = line;
        drawn.push(svg("circle", { class: `dot-${number}`, cx: this.x(iteration) + 4, cy: y(value), r: 3 }));
      }
      drawn.push(svg("polyline", { class: `line-${number}`, points: at.join(" ") }));
    });
    this.chart.replaceChildren(...drawn);
    this.chart.dataset.last = last;
    this.show(this.at);
  }

  values(iteration) {
    return Object.entries(this.lines).map(([name, line]) => [name, line.find(([at]) => at === iteration)?.[1]]);
  }

  show(iteration) {
    this.at = iteration;
    this.chart.querySelector(".cursor")?.remove();
    const shown = iteration ?? this.iterations.at(-1);
    if (iteration !== null) {
      const x = this.x(iteration);
      this.chart.append(svg("line", { class: "cursor", x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }));
    }
    const parts = this.values(shown).map(([name, value], number) => {
      const part = document.createElement("span");
      part.className = `key-${number}`;
      part.textContent = ` ${name} ${short(value)} `;
      return part;
    });
    this.readout.replaceChildren(`iteration ${shown}: `, ...parts);
    this.chart.setAttribute("aria-label", `${this.title}, ${this.readout.textContent}`);
  }

  point(event) {
    const box = this.chart.getBoundingClientRect();
    const wanted = ((event.clientX - box.left) / box.width) * WIDTH;
    this.show(this.iterations.reduce((a, b) => (Math.abs(this.x(b) - wanted) < Math.abs(this.x(a) - wanted) ? b : a)));
  }

  key(event, open) {
    const place = this.iterations.indexOf(this.at ?? this.iterations.at(-1));
    const to = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: this.iterations.length - 1 }[event.key];
    if (to !== undefined) this.show(this.iterations[Math.min(Math.max(to, 0), this.iterations.length - 1)]);
    else if (event.key === "Enter") open(this.at ?? this.iterations.at(-1));
    else return;
    event.preventDefault();
  }
}
