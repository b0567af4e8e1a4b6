/** Which folder may import what; `docs/architecture.md` gives the reasons. Type-only imports count. */
export default {
  forbidden: [
    {
      name: 'no-cycles',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    {
      name: 'kafscale-is-pure',
      comment: 'What a KafScale cluster stores is decoded without I/O, and without the service.',
      severity: 'error',
      from: { path: '^kafscale/' },
      to: { pathNot: ['^kafscale/', '^node_modules/(protobufjs|parse-prometheus-text-format)/', '^(buffer|util)$'] },
    },
    {
      name: 'lib-is-pure',
      comment: 'Utilities belong to no capability, so they know none.',
      severity: 'error',
      from: { path: '^lib/' },
      to: { path: '^(app|errors|server)\\.ts$|^(cli|kafscale|plugins|routes|tools)/' },
    },
    {
      name: 'errors-know-nothing',
      severity: 'error',
      from: { path: '^errors\\.ts$' },
      to: { pathNot: '^node_modules/@fastify/error/' },
    },
    {
      name: 'plugins-know-no-routes',
      severity: 'error',
      from: { path: '^plugins/' },
      to: { path: '^routes/' },
    },
    {
      name: 'plugins-know-no-tool',
      comment: 'A capability knows what a tool is, and no single one.',
      severity: 'error',
      from: { path: '^plugins/' },
      to: { path: '^tools/', pathNot: '^tools/tool\\.ts$' },
    },
    {
      name: 'plugins-import-types-of-tools',
      severity: 'error',
      from: { path: '^plugins/' },
      to: { path: '^tools/', dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'tools-import-types-of-plugins',
      comment: 'A tool uses what it is given, so nothing reaches it around the registry.',
      severity: 'error',
      from: { path: '^tools/' },
      to: { path: '^(plugins|routes)/', dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'tools-have-no-io',
      severity: 'error',
      from: { path: '^tools/' },
      to: { dependencyTypes: ['core'], pathNot: '^crypto$' },
    },
    {
      name: 'the-service-stands-alone',
      comment: 'The package contains nothing of what surrounds the service.',
      severity: 'error',
      from: { path: '^(app|errors|server)\\.ts$|^(bin|cli|kafscale|lib|plugins|routes|tools)/' },
      to: { path: '^(bench|demo|examples|scripts|tests)/' },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '^(dist|coverage|\\.tap|\\.cache)/' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'types', 'node', 'default'] },
  },
}
