// [data-copy="text"]: put the text on the clipboard; [data-copy-from="id"]: the text of that element.
import { toast } from "./toast.js";

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy], [data-copy-from]");
  if (!button) return;
  const source = button.dataset.copyFrom;
  const text = source ? document.getElementById(source).textContent.trim() : button.dataset.copy;
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied");
  } catch {
    toast("Copying was refused by the browser");
  }
});
