// COUNT SEED: prints requests that the libraries of providers have signed, as JSON: COUNT of each provider. The secrets and
// bodies follow from SEED. It is read from stdin, in the directory with the libraries:
//   cd target/tools/signers && node --input-type=module - 2 7 <sign.mjs
import { createHash } from 'node:crypto';
import { hmacValidator } from '@adyen/api-library';
import { signRequest } from '@contentful/node-apps-toolkit';
import { Signature as HubSpot } from '@hubspot/api-client';
import { sign } from '@octokit/webhooks-methods';
import { WorkOS } from '@workos-inc/node';
import { Webhook as StandardWebhook } from 'standardwebhooks';
import Stripe from 'stripe';
import { Webhook as SvixWebhook } from 'svix';
import { getExpectedTwilioSignature } from 'twilio/lib/webhooks/webhooks.js';

const [count, seed] = process.argv.slice(2).map(Number);
let state = 0;
const bytes = (length) => {
  const parts = [];
  for (let have = 0; have < length; have += 32) {
    parts.push(createHash('sha256').update(`${seed} ${state++}`).digest());
  }
  return Buffer.concat(parts).subarray(0, length);
};
const number = (below) => bytes(4).readUInt32LE() % below;
const text = () => {
  const pieces = ['a', 'Z', '0', ' ', '"', '\\', '/', '&', '=', '+', '%', '<', '>', 'é', '\u2028', '日本', '😀', '\n', '\t'];
  return Array.from({ length: number(30) }, () => pieces[number(pieces.length)]).join('');
};
const json = () => JSON.stringify({ id: `evt_${state}`, [text()]: text(), list: [number(1000), text(), null, true] });

const now = 1700000000;
const stripe = new Stripe('sk_test_0');
const workos = new WorkOS('sk_test_0');
const adyen = new hmacValidator();

const listed = (Webhook, prefix) => (body, secret) => {
  const id = `msg_${state}`;
  const signature = new Webhook(secret).sign(id, new Date(now * 1000), body);
  return { [`${prefix}-id`]: id, [`${prefix}-timestamp`]: `${now}`, [`${prefix}-signature`]: signature };
};
const secretText = () => bytes(24).toString('hex');
const secretBase64 = () => `whsec_${bytes(24 + number(40)).toString('base64')}`;

const providers = {
  'adyen-platform': [
    () => bytes(32).toString('hex'),
    (body, secret) => ({ hmacsignature: adyen.calculateHmac(body, secret) }),
  ],
  contentful: [
    () => bytes(32).toString('hex'),
    (body, secret) => {
      const headers = { 'content-type': 'application/json', 'x-contentful-topic': text().replace(/[^!-~]/g, '') || 'x' };
      return { ...headers, ...signRequest(secret, { method: 'POST', path: '/in', headers, body }, now * 1000) };
    },
  ],
  hubspot: [
    secretText,
    (requestBody, clientSecret) => {
      const timestamp = now * 1000;
      const signed = { clientSecret, requestBody, timestamp, url: 'https://hooks.example.com/in' };
      const signature = HubSpot.getSignature('POST', 'v3', signed);
      return { 'x-hubspot-request-timestamp': `${timestamp}`, 'x-hubspot-signature-v3': signature };
    },
  ],
  workos: [
    secretText,
    async (body, secret) => {
      const signature = await workos.webhooks.computeSignature(now * 1000, JSON.parse(body), secret);
      return { 'workos-signature': `t=${now * 1000}, v1=${signature}` };
    },
  ],
  github: [secretText, async (body, secret) => ({ 'x-hub-signature-256': await sign(secret, body) })],
  'standard-webhooks': [secretBase64, listed(StandardWebhook, 'webhook')],
  svix: [secretBase64, listed(SvixWebhook, 'svix')],
  stripe: [
    () => `whsec_${secretText()}`,
    (payload, secret) => ({
      'stripe-signature': stripe.webhooks.generateTestHeaderString({ payload, secret, timestamp: now }),
    }),
  ],
};

const requests = [];
for (const [preset, [newSecret, signed]] of Object.entries(providers)) {
  for (let n = 0; n < count; n++) {
    const [secret, body] = [newSecret(), json()];
    requests.push({ preset, secret, uri: '/in', headers: await signed(body, secret), body, now });
  }
}
for (let n = 0; n < count; n++) {
  const [secret, query] = [secretText(), n % 2 ? '?a=1&b=%20c' : ''];
  const url = `https://hooks.example.com/in${query}`;
  const params = Object.fromEntries(Array.from({ length: number(8) }, () => [text(), text()]));
  const form = new URLSearchParams(params).toString();
  const signature = getExpectedTwilioSignature(secret, url, params);
  const headers = { 'x-twilio-signature': signature, 'content-type': 'application/x-www-form-urlencoded' };
  requests.push({ preset: 'twilio', secret, uri: `/in${query}`, headers, body: form, now });
}
process.stdout.write(JSON.stringify(requests));
