// toast("Copied"): a short word that leaves by itself. The region is in base.html and is read aloud politely.
export function toast(text, milliseconds = 2600) {
  const region = document.querySelector("[data-toasts]");
  if (!region) return;
  const element = document.createElement("p");
  element.className = "toast";
  element.textContent = text;
  region.replaceChildren(element);
  setTimeout(() => element.remove(), milliseconds);
}
