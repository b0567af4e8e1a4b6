import simpleImportSort from 'eslint-plugin-simple-import-sort'
import neostandard, { plugins } from 'neostandard'

export default [
  ...neostandard({ ts: true, ignores: ['dist/**', '.tap/**', 'coverage/**', '.cache/**'] }),
  {
    plugins: { 'simple-import-sort': simpleImportSort },
    rules: {
      'no-void': ['error', { allowAsStatement: true }],
      '@stylistic/max-len': ['error', { code: 120, ignoreUrls: true }],
      // Node.js, packages, then files from the farthest to the nearest, without blank lines between them.
      'simple-import-sort/imports': ['error', { groups: [['^node:', '^@?\\w', '^\\.\\.', '^\\.']] }],
    },
  },
  {
    files: ['**/*.ts'],
    languageOptions: { parserOptions: { projectService: true } },
    plugins: { '@typescript-eslint': plugins['typescript-eslint'].plugin },
    rules: {
      '@typescript-eslint/ban-ts-comment': 'error',
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'inline-type-imports' }],
      '@typescript-eslint/no-explicit-any': 'error',
      // tap awaits its tests itself.
      '@typescript-eslint/no-floating-promises': ['error', {
        allowForKnownSafePromises: [{ from: 'package', package: '@tapjs/core', name: 'PromiseWithSubtest' }],
      }],
      '@typescript-eslint/no-import-type-side-effects': 'error',
    },
  },
]
