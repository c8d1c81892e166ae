/** The build of this page: a hash over its sources. */
declare const __NECTAR_BUILD__: string;
