"use strict";
// The documentation panel: reads the schema once and shows one type at a time. Everything that comes
// from outside is set as text, never as markup.

const INTROSPECTION = `query { __schema { queryType { name } mutationType { name } subscriptionType { name }
  types { kind name description isOneOf
    fields { name description type { ...T } args { name description defaultValue type { ...T } } }
    inputFields { name description defaultValue type { ...T } }
    enumValues { name description }
    possibleTypes { name } interfaces { name } } } }
fragment T on __Type { kind name ofType { kind name ofType { kind name ofType { kind name } } } }`;

const types = new Map();
const trail = [];

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

function typeLink(type) {
  if (type.kind === "NON_NULL") return [...typeLink(type.ofType), "!"];
  if (type.kind === "LIST") return ["[", ...typeLink(type.ofType), "]"];
  const button = element("button", type.name);
  button.className = "type";
  button.addEventListener("click", () => show(type.name));
  return [button];
}

function argumentsOf(field) {
  if (!field.args || !field.args.length) return [];
  const parts = field.args.flatMap((each, index) => [
    index ? ", " : "", `${each.name}: `, ...typeLink(each.type),
    each.defaultValue && each.defaultValue !== "null" ? ` = ${each.defaultValue}` : "",
  ]);
  return ["(", ...parts, ")"];
}

function show(name, step = true) {
  const type = types.get(name);
  if (!type) return;
  if (step && trail[trail.length - 1] !== name) trail.push(name);
  const reading = document.getElementById("reading");
  reading.replaceChildren(element("h2", `${type.kind.toLowerCase().replace("_", " ")} ${type.name}`));
  if (type.description) reading.append(element("p", type.description));
  if (type.isOneOf) reading.append(element("p", "Exactly one of these keys."));
  const list = element("dl");
  for (const field of type.fields || type.inputFields || []) {
    list.append(
      element("dt", "", field.name, ...argumentsOf(field), ": ", ...typeLink(field.type)),
      element("dd", field.description || ""),
    );
    for (const each of field.args || []) {
      if (each.description) list.append(element("dd", `${each.name}: ${each.description}`));
    }
  }
  for (const value of type.enumValues || []) {
    list.append(element("dt", value.name), element("dd", value.description || ""));
  }
  for (const each of type.possibleTypes || []) {
    list.append(element("dt", "", ...typeLink({ kind: "OBJECT", name: each.name })));
  }
  reading.append(list);
  showTrail();
}

function showTrail() {
  const nav = document.getElementById("trail");
  nav.replaceChildren(...trail.slice(-4).flatMap((name) => [...typeLink({ name }), " › "]));
}

function search(text) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return show("Query");
  const list = element("dl");
  for (const type of types.values()) {
    const fields = (type.fields || type.inputFields || []).filter((each) =>
      each.name.toLowerCase().includes(wanted));
    if (!type.name.toLowerCase().includes(wanted) && !fields.length) continue;
    list.append(element("dt", "", ...typeLink({ name: type.name })),
      element("dd", fields.map((each) => each.name).join(", ")));
  }
  document.getElementById("reading").replaceChildren(list);
}

async function loadSchema(send) {
  const answer = await send({ query: INTROSPECTION });
  if (!answer.data) return;
  types.clear();
  for (const type of answer.data.__schema.types) {
    if (!type.name.startsWith("__")) types.set(type.name, type);
  }
  show("Query");
}
