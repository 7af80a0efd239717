import type { CardFlags } from './card.ts';
import type { Plan } from './plan.ts';

/*
 * README.md of an app that runs its author's own Python: what the files are, and how to make its environment on another machine.
 */

/** The text of README.md. `lock` is the text of requirements.lock, `notes` what of the environment needs a person. */
export function programReadme(
  name: string,
  plan: Plan,
  { licence }: Pick<CardFlags, 'licence'>,
  lock: string,
  notes: readonly string[],
): string {
  const python = /^# Python (\d+\.\d+)/.exec(lock)?.[1] ?? '3';
  const library = plan.kind === 'monai' ? 'monai' : 'nnunetv2';
  const versions = ['torch', library].map((one) => `${one} ${plan.versions[one] ?? '?'}`).join(', ');
  return `# ${name.replaceAll(/\s+/g, ' ')}

Made by \`tomaat import --command\`. A prediction runs the author's own pipeline in Python (${versions}). The licence of the weights is
${licence}.

| file | what |
| --- | --- |
| \`tomaat.yaml\` | the app: card, inputs, labels, and the program |
| \`serve.py\`, \`tomaat_*.py\` | the program: it loads the model once, and answers one request after another |
| \`model\` | the author's files |
| \`requirements.lock\` | the packages of the author's environment, with their versions |
| \`venv\` | a link to that environment on the machine of the import: not a part of the app, so leave it out of what you publish |
| \`parity.md\`, \`parity.json\`, \`import.json\` | how the results agree with the author's; what the app was made of |

## On another machine

Python ${python} is the version of the author's environment. In this folder:

\`\`\`sh
rm -f venv && python${python} -m venv venv
venv/bin/python3 -m pip install -r requirements.lock
npx tomaat check .
\`\`\`

The program ends with a message if torch, ${library} or another package that decides the result has another version than in
\`requirements.lock\`. Checkpoints are pickles, which can hold code: run only those that you trust.

The program takes a GPU if torch finds one. \`MODEL_DEVICE=cpu\`, in the environment of the server or under \`model.environment\` in
\`tomaat.yaml\`, keeps it on the CPU; \`cuda:1\` chooses a GPU.
${notes.length > 0 ? `\n## What the lock does not say\n\n${notes.map((note) => `- ${note.replaceAll(/\s+/g, ' ')}.\n`).join('')}` : ''}`;
}
