"use strict";
// Shows openapi.json: every operation, with its parameters and messages.
function element(name, text) {
  const e = document.createElement(name);
  if (text !== undefined) e.textContent = text;
  return e;
}

// expand replaces references by what they name, each once along a branch.
function expand(schema, all, seen) {
  if (Array.isArray(schema)) return schema.map((s) => expand(s, all, seen));
  if (schema === null || typeof schema !== "object") return schema;
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    if (seen.includes(name)) return "(" + name + " again)";
    return expand(all[name], all, seen.concat(name));
  }
  const out = {};
  for (const key of Object.keys(schema)) out[key] = expand(schema[key], all, seen);
  return out;
}

function message(title, schema, all) {
  const box = element("details");
  box.append(element("summary", title), element("pre", JSON.stringify(expand(schema, all, []), null, 2)));
  return box;
}

fetch("/openapi.json").then((r) => r.json()).then((doc) => {
  const main = document.getElementById("operations");
  const all = doc.components.schemas;
  for (const path of Object.keys(doc.paths).sort()) {
    for (const [verb, op] of Object.entries(doc.paths[path])) {
      const box = element("section");
      box.append(element("h2", verb.toUpperCase() + " " + path), element("p", op.tags[0] + "/" + op.summary));
      const list = element("ul");
      for (const p of op.parameters) list.append(element("li", p.name + " (" + p.in + ")"));
      box.append(list);
      if (op.requestBody) box.append(message("Request", op.requestBody.content["application/json"].schema, all));
      box.append(message("Answer", op.responses["200"].content["application/json"].schema, all));
      main.append(box);
    }
  }
});
