// Bundles src/ into dist/, which is checked in so that a Rust build needs no Node: `npm run build`.
// `--check` fails if dist/ is not what src/ gives.

import { readFile, writeFile } from 'node:fs/promises';
import { build } from 'esbuild';

const common = { bundle: true, write: false, target: ['chrome100', 'firefox113', 'safari16.4'], charset: 'utf8', legalComments: 'inline' };
const dir = new URL('.', import.meta.url).pathname;
const outputs = {
  'dist/viewer.js': await build({ ...common, entryPoints: [`${dir}src/main.js`], format: 'iife' }),
  'dist/viewer.css': await build({ ...common, entryPoints: [`${dir}src/style.css`] }),
};

let stale = false;
for (const [name, { outputFiles }] of Object.entries(outputs)) {
  const text = `/* Built from otlp/page/viewer/src by \`npm run build\`; edit there. */\n${outputFiles[0].text}`;
  // The page is one HTML file: nothing in it may end the element it stands in.
  if (/<\/(script|style)/i.test(text)) throw new Error(`${name} holds an end tag`);
  if (process.argv.includes('--check')) {
    if ((await readFile(dir + name, 'utf8')) !== text) {
      stale = true;
      console.error(`${name} is not what src/ gives: run npm run build`);
    }
  } else {
    await writeFile(dir + name, text);
    console.log(`${name}: ${text.length} bytes`);
  }
}
process.exitCode = stale ? 1 : 0;
