// Texts that a policy wrote, put into the page. The server has made the HTML inert; only known elements are taken over
// all the same, without attributes that could do anything, so that one mistake there is not enough.
const ELEMENTS = new Set([
  "P", "H4", "H5", "H6", "UL", "OL", "LI", "BLOCKQUOTE", "PRE", "CODE", "EM", "STRONG", "S", "BR", "HR", "SPAN", "BDI",
  "TABLE", "THEAD", "TBODY", "TR", "TH", "TD",
]);
const ATTRIBUTES = new Set(["class", "dir", "start"]);

export function formatted(html) {
  const parsed = new DOMParser().parseFromString(html, "text/html");
  return copied(parsed.body);
}

export function plain(text) {
  const block = document.createElement("div");
  block.className = "plain";
  block.dir = "auto";
  block.textContent = text;
  return block;
}

// [[text, differs], …] with what differs marked.
export function marked(segments) {
  const block = document.createElement("div");
  block.className = "plain";
  block.dir = "auto";
  for (const [text, differs] of segments) {
    if (!differs) {
      block.append(text);
      continue;
    }
    const space = text.length - text.trimStart().length;
    const mark = document.createElement("mark");
    mark.textContent = text.slice(space);
    block.append(text.slice(0, space), mark);
  }
  return block;
}

function copied(source) {
  const target = document.createDocumentFragment();
  for (const node of source.childNodes) {
    if (node.nodeType === Node.TEXT_NODE) target.append(node.data);
    if (node.nodeType !== Node.ELEMENT_NODE) continue;
    if (!ELEMENTS.has(node.tagName)) {
      target.append(node.textContent);
      continue;
    }
    const element = document.createElement(node.tagName);
    for (const { name, value } of node.attributes) if (ATTRIBUTES.has(name)) element.setAttribute(name, value);
    element.append(copied(node));
    target.append(element);
  }
  return target;
}
