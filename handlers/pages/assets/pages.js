// What the pages do beyond HTML. Each part looks for its own attribute and does
// nothing where that is missing; without this file everything still works but
// passkeys, which have no other way.
"use strict";

// Rules of passwords, ticked off as one types. The server judges by the same
// ones: bytes are counted, the classes are ASCII's, all else is a symbol.
for (const box of document.querySelectorAll("[data-rules]")) {
  const field = document.getElementById(box.dataset.rules);
  const status = box.querySelector("[role=status]");
  const rules = [...box.querySelectorAll("[data-rule]")];
  const holds = {
    length: (s, rule) => new TextEncoder().encode(s).length >= Number(rule.dataset.min),
    lower: (s) => /[a-z]/.test(s),
    upper: (s) => /[A-Z]/.test(s),
    number: (s) => /[0-9]/.test(s),
    symbol: (s) => /[^a-zA-Z0-9]/.test(s),
  };
  const judge = () => {
    let met = 0;
    for (const rule of rules) {
      const good = holds[rule.dataset.rule](field.value, rule);
      rule.classList.toggle("met", good);
      rule.querySelector(".unseen").textContent = good ? box.dataset.met : box.dataset.unmet;
      if (good) met++;
    }
    status.textContent = field.value === "" ? "" : box.dataset.count.replace("%d", met).replace("%d", rules.length);
  };
  field.addEventListener("input", judge);
  judge();
}

// The second field has to repeat the first.
for (const again of document.querySelectorAll("[data-repeats]")) {
  const first = document.getElementById(again.dataset.repeats);
  const judge = () => again.setCustomValidity(again.value === "" || again.value === first.value ? "" : again.dataset.differs);
  again.addEventListener("input", judge);
  first.addEventListener("input", judge);
}

// The eye in a password field.
for (const eye of document.querySelectorAll("[data-reveals]")) {
  const field = document.getElementById(eye.dataset.reveals);
  eye.hidden = false;
  eye.addEventListener("click", () => {
    const shown = field.type === "password";
    field.type = shown ? "text" : "password";
    eye.setAttribute("aria-pressed", String(shown));
  });
}

// A form is sent once. Coming back to it brings its button back.
const busy = (form, on) => {
  form.setAttribute("aria-busy", String(on));
  for (const button of form.querySelectorAll("button[type=submit]")) button.disabled = on;
};
for (const form of document.querySelectorAll("form")) {
  if ("passkey" in form.dataset) continue;
  form.addEventListener("submit", () => setTimeout(() => busy(form, true)));
}
addEventListener("pageshow", () => document.querySelectorAll("form[aria-busy=true]").forEach((form) => busy(form, false)));

// Passkeys. The form asks the server for what is to be signed, hands that to
// the browser, and sends what comes back as an ordinary form.
const bytes = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
const text = (buffer) => btoa(Array.from(new Uint8Array(buffer), (b) => String.fromCharCode(b)).join(""))
  .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

const prepared = (options) => {
  const key = { ...options, challenge: bytes(options.challenge) };
  if (options.user) key.user = { ...options.user, id: bytes(options.user.id) };
  for (const list of ["excludeCredentials", "allowCredentials"]) {
    if (options[list]) key[list] = options[list].map((c) => ({ ...c, id: bytes(c.id) }));
  }
  return key;
};

const answer = (credential) => {
  const r = credential.response;
  const response = { clientDataJSON: text(r.clientDataJSON) };
  if (r.attestationObject) {
    response.attestationObject = text(r.attestationObject);
    response.transports = r.getTransports ? r.getTransports() : [];
  } else {
    response.authenticatorData = text(r.authenticatorData);
    response.signature = text(r.signature);
    if (r.userHandle) response.userHandle = text(r.userHandle);
  }
  return {
    id: credential.id, rawId: text(credential.rawId), type: credential.type, response,
    authenticatorAttachment: credential.authenticatorAttachment ?? undefined,
    clientExtensionResults: credential.getClientExtensionResults(),
  };
};

for (const form of document.querySelectorAll("form[data-passkey]")) {
  const problem = document.getElementById(form.dataset.problem);
  if (!window.PublicKeyCredential) {
    if (form.dataset.unsupported) problem.textContent = form.dataset.unsupported;
    continue;
  }
  form.hidden = false;
  const say = (text) => {
    problem.textContent = text;
    busy(form, false);
    form.querySelector("button[type=submit]").focus(); // it lost the focus when it was disabled
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    problem.textContent = "";
    busy(form, true);
    try {
      const body = new URLSearchParams(new FormData(form));
      const reply = await fetch(form.dataset.begin, { method: "POST", body, headers: { Accept: "application/json" } });
      const { publicKey, state, error } = await reply.json();
      if (!publicKey) {
        say(error || form.dataset.failed);
        return;
      }
      const options = { publicKey: prepared(publicKey) };
      const credential = await (form.dataset.passkey === "create" ? navigator.credentials.create(options) : navigator.credentials.get(options));
      form.elements.credential.value = JSON.stringify(answer(credential));
      form.elements.state.value = state;
      form.submit();
    } catch (e) {
      say((e.name === "InvalidStateError" && form.dataset.known) || form.dataset.failed);
    }
  });
}
