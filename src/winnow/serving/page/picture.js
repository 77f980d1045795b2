// Where pictures come from: files, the clipboard, the camera, samples.

import { find, make } from "./dom.js";

const LARGEST_SHOWN = 1600; // pixels of the longer side on the page; the server gets the file as it is
export const SAMPLES = 6;

/** A blob as a picture that can be shown. An Error tells why it can't. */
export async function picture(blob, name, limits) {
  if (blob.size > limits.upload_bytes) {
    throw new Error(`${name} has ${(blob.size / 2 ** 20).toFixed(1)} MiB; this server takes at most `
      + `${(limits.upload_bytes / 2 ** 20).toFixed(0)} MiB.`);
  }
  let whole;
  try {
    whole = await createImageBitmap(blob, { imageOrientation: "from-image" });
  } catch {
    throw new Error(`${name} can't be read as a picture. It may be damaged, or of another format.`);
  }
  const factor = Math.min(1, LARGEST_SHOWN / Math.max(whole.width, whole.height));
  if (factor === 1) return { blob, name, bitmap: whole };
  const bitmap = await createImageBitmap(whole, { resizeWidth: Math.max(1, Math.round(whole.width * factor)),
    resizeHeight: Math.max(1, Math.round(whole.height * factor)), resizeQuality: "high" });
  whole.close();
  return { blob, name, bitmap };
}

export async function sample(number) {
  return (await fetch(`/samples/${number}.jpg`)).blob();
}

/** Listen to everything that can bring a picture; `take` gets a blob and its name. */
export function listen(take) {
  find("open").addEventListener("click", () => find("file").click());
  find("file").addEventListener("change", ({ target }) => {
    if (target.files[0]) take(target.files[0], target.files[0].name);
    target.value = "";
  });
  addEventListener("paste", ({ clipboardData }) => {
    const file = [...clipboardData.files].find((each) => each.type.startsWith("image/"));
    if (file) take(file, "The pasted picture");
  });
  const over = (is) => document.body.classList.toggle("dropping", is);
  addEventListener("dragover", (event) => { event.preventDefault(); over(true); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) over(false); });
  addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    const [file] = event.dataTransfer.files;
    if (file) take(file, file.name);
  });
}

/** Buttons with the pictures to try. */
export function offerSamples(take) {
  find("samples").replaceChildren(...Array.from({ length: SAMPLES }, (_, number) => {
    const button = make("button", { type: "button", "aria-pressed": "false", "aria-label": `Sample ${number + 1}` },
      make("img", { src: `/samples/${number}.jpg`, alt: "", loading: "lazy", width: 96, height: 72 }));
    button.addEventListener("click", () => take(number));
    return button;
  }));
}

export function markSample(number) {
  [...find("samples").children].forEach((button, i) => button.setAttribute("aria-pressed", String(i === number)));
}

/** The camera in a dialog, until a picture was taken or it is closed. */
export function offerCamera(take, fail) {
  const [dialog, video] = [find("camera-dialog"), find("video")];
  if (!navigator.mediaDevices?.getUserMedia) {
    find("camera").disabled = true;
    find("camera").title = "Browsers lend the camera only to https pages and to this machine";
    return;
  }
  find("camera").addEventListener("click", async () => {
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      fail(new Error(`The camera can't be used (${error.name}).`));
      return;
    }
    dialog.showModal();
    await video.play();
  });
  find("take").addEventListener("click", async () => {
    const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
    canvas.getContext("2d").drawImage(video, 0, 0);
    dialog.close();
    take(await canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 }), "The camera's picture");
  });
  find("close-camera").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    video.srcObject?.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
  });
}
