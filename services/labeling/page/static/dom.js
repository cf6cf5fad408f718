// What the leads' pages do alike.
export const byId = (id) => document.getElementById(id);

export function notice(text) {
  byId("notice").textContent = text;
  byId("notice").hidden = !text;
}

// A definition list of [name, value]; `shown` may make more of a value than its text.
export function numbers(list, pairs, shown = (value) => value) {
  const found = pairs.length ? pairs : [["None yet", ""]];
  list.replaceChildren(...found.flatMap(([name, value]) => {
    const term = document.createElement("dt");
    term.textContent = name;
    const number = document.createElement("dd");
    number.append(shown(value));
    number.dataset.name = name;
    number.dataset.value = String(value ?? "–");
    return [term, number];
  }));
}

// What went wrong, and what to do when it is the sign-in.
export function complain(error) {
  const signIn = error.status === 401 || error.status === 403;
  notice(signIn ? `${error.message} Sign in on the annotators’ page as a lead, then come back.` : error.message);
}
