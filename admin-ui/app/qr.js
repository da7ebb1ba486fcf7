// A text as a QR code, drawn as one path: no picture is loaded from anywhere.
import { html } from "./html.js";
import qrcode from "../vendor/qrcode.mjs";

const QUIET = 2;

export function Qr({ text }) {
  const code = qrcode(0, "M");
  code.addData(text);
  code.make();
  const side = code.getModuleCount();
  let path = "";
  for (let row = 0; row < side; row += 1) for (let column = 0; column < side; column += 1) if (code.isDark(row, column)) path += `M${column + QUIET},${row + QUIET}h1v1h-1z`;
  return html`<svg class="qr" viewBox=${`0 0 ${side + 2 * QUIET} ${side + 2 * QUIET}`} role="img" aria-label="QR code of the secret; the same is below as text" shape-rendering="crispEdges"><path d=${path} /></svg>`;
}
