// Two small charts as SVG. What they show stands beside them or in their label as text.
const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function chart(width, height, label) {
  const found = svg("svg", { class: "chart", width, height, viewBox: `0 0 ${width} ${height}`, role: "img" });
  found.setAttribute("aria-label", label);
  return found;
}

// A point with its interval between `low` and `high`, the ends of the scale; `zero` draws the line at a value.
export function interval(label, { at, from, to, low, high, zero = null }) {
  const [width, height] = [120, 16];
  const span = high - low || 1;
  const x = (value) => (4 + ((Math.min(Math.max(value, low), high) - low) / span) * (width - 8)).toFixed(1);
  const found = chart(width, height, label);
  found.append(svg("line", { class: "axis", x1: 4, x2: width - 4, y1: 8, y2: 8 }));
  if (zero !== null) found.append(svg("line", { class: "axis", x1: x(zero), x2: x(zero), y1: 1, y2: 15 }));
  found.append(svg("line", { class: "range", x1: x(from), x2: x(to), y1: 8, y2: 8 }));
  found.append(svg("circle", { class: "point", cx: x(at), cy: 8, r: 4 }));
  return found;
}

// Values of 0 to 1 over time.
export function sparkline(label, points) {
  const [width, height] = [90, 22];
  const found = chart(width, height, label);
  found.append(svg("line", { class: "axis", x1: 0, x2: width, y1: height - 1, y2: height - 1 }));
  const [first, last] = [points[0][0], points.at(-1)[0]];
  const x = (time) => (2 + ((time - first) / (last - first || 1)) * (width - 6)).toFixed(1);
  const y = (value) => (2 + (1 - value) * (height - 5)).toFixed(1);
  const line = points.map(([time, value]) => `${x(time)},${y(value)}`).join(" ");
  found.append(svg("polyline", { class: "curve", points: line }));
  const [time, value] = points.at(-1);
  found.append(svg("circle", { class: "point", cx: x(time), cy: y(value), r: 2 }));
  return found;
}
