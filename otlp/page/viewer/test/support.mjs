// Reads a page that the generator (otlp/page/examples/synthetic.rs) wrote, without a browser.

import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { parse } from '../src/decode.js';

export function profileOf(path) {
  const block = /id="profile">([^<]*)</.exec(readFileSync(path, 'utf8'))[1];
  return parse(gunzipSync(Buffer.from(block, 'base64')));
}
