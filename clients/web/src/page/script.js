/** A speaker's tag, as the server reads it. */
const TAG = /\[(?:[sS]([1-5])|([1-5]))\]/g;

/**
 * Where the tags of a script are.
 *
 * @param {string} text
 * @returns {{start: number, end: number, speaker: string}[]} in UTF-16 units, in order
 */
export function tagsIn(text) {
  return [...text.matchAll(TAG)].map((match) => ({
    start: match.index,
    end: match.index + match[0].length,
    speaker: `S${match[1] ?? match[2]}`,
  }));
}

/**
 * Who speaks in a script. Words before the first tag are S1's.
 *
 * @param {string} text
 * @returns {string[]} 'S1' to 'S5', sorted, each once
 */
export function speakersIn(text) {
  const tags = tagsIn(text);
  const speakers = new Set(tags.map((tag) => tag.speaker));
  if (speakers.size === 0 || text.slice(0, tags[0].start).trim()) speakers.add('S1');
  return [...speakers].sort();
}

/**
 * @param {{speaker: string, text: string}[]} turns
 * @returns {string} one turn a line
 */
export function formatScript(turns) {
  return turns.map((turn) => `[${turn.speaker}] ${turn.text}`).join('\n');
}

/** Scripts to begin with: short everyday sentences, which every model can say. */
export const EXAMPLES = [
  {
    name: 'a morning',
    script: [
      '[S1] Good morning, how are you today?',
      '[S2] I am very well, thank you for asking.',
      '[S1] The weather is so nice, let us go for a walk.',
      '[S2] That is a good idea.',
    ].join('\n'),
  },
  {
    name: 'an interview',
    script: [
      '[S1] Thank you for coming. When did you begin to write?',
      '[S2] I was seven years old. My first story was about a horse.',
      '[S1] And did anybody read it?',
      '[S2] My sister did. She asked for a better end.',
    ].join('\n'),
  },
  {
    name: 'three friends',
    script: [
      '[S1] Where shall we eat tonight?',
      '[S2] I would like to have some soup.',
      '[S3] We had soup on Monday.',
      '[S1] Then let us cook at home.',
      '[S3] I will bring the bread.',
    ].join('\n'),
  },
];
