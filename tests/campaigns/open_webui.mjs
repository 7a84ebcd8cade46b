// Chat once through Open WebUI in a real browser: node open_webui.mjs URL ANSWER SCREENSHOT
// OPEN_WEBUI_NPM: the folder with node_modules/playwright-core. CHROMIUM: the browser's program.
import { createRequire } from "node:module";

const [url, answer, screenshot] = process.argv.slice(2);
const require = createRequire(`${process.env.OPEN_WEBUI_NPM}/package.json`);
const { chromium } = require("playwright-core");
const WAIT_MS = 180_000;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-dev-shm-usage"],
});
try {
  const page = await browser.newPage({ viewport: { width: 1100, height: 700 } });
  await page.goto(url, { timeout: WAIT_MS });
  const input = page.locator("#chat-input");
  await input.waitFor({ timeout: WAIT_MS });
  // The notes of a release lie above the page at the first visit.
  await page.keyboard.press("Escape");
  await input.click({ timeout: WAIT_MS });
  await page.keyboard.type("Hello?");
  await page.keyboard.press("Enter");
  await page.getByText(answer).first().waitFor({ timeout: WAIT_MS });
  await page.screenshot({ path: screenshot });
  console.log(`ok: ${answer}`);
} finally {
  await browser.close();
}
