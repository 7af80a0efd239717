import { chromium } from 'playwright-core';

const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: [
    '--headless',
    '--no-sandbox',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--use-angle=swiftshader',
    '--enable-unsafe-swiftshader',
  ],
});
const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
page.on('console', (m) => console.log('console', m.type(), m.text().slice(0, 300)));
page.on('pageerror', (e) => console.log('pageerror', e.message, e.stack?.slice(0, 400)));
page.on('requestfailed', (r) => console.log('failed', r.url(), r.failure()?.errorText));
await page.addInitScript(() =>
  document.addEventListener('securitypolicyviolation', (e) =>
    console.log('CSP', e.violatedDirective, e.blockedURI, e.sourceFile, e.lineNumber, e.sample),
  ),
);
const t0 = Date.now();
await page.goto('http://127.0.0.1:9317/');
await page.getByRole('link', { name: 'Lungs on chest CT' }).waitFor({ timeout: 8000 });
console.log('directory', Date.now() - t0);
await page.screenshot({ path: '/tmp/shots/dir.png' });
await page.getByRole('link', { name: 'Lungs on chest CT' }).click();
await page.getByRole('button', { name: 'Try it with the sample' }).waitFor({ timeout: 8000 });
await page.screenshot({ path: '/tmp/shots/service0.png', fullPage: true });
await page.getByRole('button', { name: 'Try it with the sample' }).click();
await page
  .locator('.viewer[data-ready=true]')
  .waitFor({ timeout: 40000 })
  .catch((e) => console.log(String(e).slice(0, 200)));
await page.waitForTimeout(1000);
await page.screenshot({ path: '/tmp/shots/service1.png', fullPage: true });
await page.getByRole('button', { name: 'Send and compute' }).click();
await page
  .waitForURL(/\/jobs\/(?!upload)/, { timeout: 20000 })
  .catch((e) => console.log(String(e).slice(0, 200)));
await page.screenshot({ path: '/tmp/shots/job0.png' });
await page
  .locator('.viewer[data-ready=true]')
  .waitFor({ timeout: 60000 })
  .catch((e) => console.log(String(e).slice(0, 200)));
await page.waitForTimeout(1500);
await page.screenshot({ path: '/tmp/shots/result.png', fullPage: true });
await page
  .getByRole('radio', { name: 'Slices and 3-D' })
  .click()
  .catch((e) => console.log(String(e).slice(0, 300)));
await page.waitForTimeout(2500);
await page.screenshot({ path: '/tmp/shots/result3d.png' });
console.log(Date.now() - t0);
await browser.close();
