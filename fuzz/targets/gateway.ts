/** The gateway's file of rules, and the texts that its patterns are compared with. */
import { matchSeen } from '../../packages/server/src/gateway/match-rules.ts';
import { parseGatewayConfig } from '../../packages/server/src/gateway/parse-config.ts';
import { compilePattern, matchesPattern } from '../../packages/server/src/gateway/patterns.ts';
import { bytesOf, must, type Target } from '../target.ts';

const rulesWith = (when: string, more = '') => `schemaVersion: 1
sources: {a: {type: folder, path: /}, b: {type: dicomweb, url: "https://b/rs", poll: 5m}}
services: {s: {url: "https://s", service: t}}
destinations: {d: {type: source, source: b}}
rules: [{id: r, when: {${when}}, service: s, destinations: [d]}]
${more}`;

export const gatewayTargets = {
  gatewayRules: {
    description: 'Files of rules of a gateway',
    seeds: async () =>
      [
        rulesWith('modality: CT'),
        rulesWith("sources: [b], description: ['*a?', 'T2\\*'], slices: {min: 2, max: 9}"),
        rulesWith('not: {bodyPart: x}, sliceSpacingMm: {max: 0.5}', 'limits: {giveUp: 2d, concurrency: 3}\n'),
      ].map(bytesOf),
    words: [
      'passwordFile: x, user: y',
      'password: x',
      'type: orthanc',
      'callingAet: ',
      'identity: keep',
      'results: [sr.dcm]',
      '&a ',
      '*a',
      '? ',
      '__proto__: 1\n',
      '36500d',
      '0s',
      '\\',
      '[',
      '{',
    ],
    maxBytes: 600,
    run(input) {
      const { config } = parseGatewayConfig(Buffer.from(input).toString('utf8'), '/nowhere/gateway.yaml');
      for (const { service, destinations, when } of config.rules) {
        must(Object.hasOwn(config.services, service), 'the service of a rule is there');
        must(
          destinations.every((name) => Object.hasOwn(config.destinations, name)),
          'the destinations of a rule are there',
        );
        must(
          when.sources?.every((name) => Object.hasOwn(config.sources, name)) ?? true,
          'so are its sources',
        );
      }
      const seen = { source: 'b', study: '1', series: '1', modality: 'CT', description: 'a', instances: 1 };
      must(matchSeen(config.rules, seen).length <= config.rules.length, 'a rule matches once');
    },
  },
  gatewayPatterns: {
    description: 'A pattern in the first line, and a text in the others',
    seeds: async () =>
      ['*thorax*\nCT Thorax', 'T2\\*?\nT2*x', '*a*b?c*\nxaybzcc', '胸部*\n胸部ＣＴ'].map(bytesOf),
    words: ['*', '?', '\\*', 'ß', 'ẞ', 'İ', 'ﬁ', 'A\u0308', '\n'],
    maxBytes: 400,
    run(input) {
      const [pattern, ...rest] = Buffer.from(input).toString('utf8').split('\n');
      const text = rest.join('\n');
      const compiled = compilePattern(pattern);
      let steps = 0;
      matchesPattern(compiled, text, () => steps++);
      const length = [...text.normalize('NFKC')].length;
      must(steps <= (length + 1) * (compiled.length + 1), 'steps are bounded by the product of the lengths');
      must(matchesPattern(compilePattern('*'), text), 'a star matches any text');
      const literal = compilePattern(text.replaceAll('\\', '').replaceAll(/[*?]/g, '\\$&'));
      must(matchesPattern(literal, text.replaceAll('\\', '')), 'a text matches itself');
    },
  },
} satisfies Record<string, Target>;
