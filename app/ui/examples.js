const texts = (...all) => all.map((text) => ({ text }));

/** Sentences to try, by language and task, written for this page. */
export const EXAMPLES = {
  ha: {
    ner: texts(
      "Ƙungiyar Arsenal ta doke Chelsea da ci biyu a birnin London.",
      "Shugaba Bola Tinubu ya gana da ministocinsa a Abuja ranar Litinin.",
      "Aliko Dangote ya gina babbar matatar mai a Legas.",
    ),
    ...syntax("Yara suna wasa a gida.", "Manoma sun fara girbin gero da dawa a bana."),
    nli: [
      { text: "Yara suna wasa a gida.", text_pair: "Yara na barci." },
      { text: "Musa ya sayi sabuwar mota jiya.", text_pair: "Musa yana da mota." },
    ],
    "zero-shot": [{ text: "An ci ƙwallo uku a wasan jiya.", labels: "wasanni, siyasa, lafiya", template: "Wannan labarin {} ne." }],
    qa: [
      {
        question: "A wace shekara aka haifi Buhari?",
        context: "An haifi Muhammadu Buhari a shekarar 1942 a garin Daura, jihar Katsina.",
      },
      {
        question: "Daga ina Kogin Neja ya taso?",
        context: "Kogin Neja ya taso daga tsaunukan Gini, ya ratsa Mali, Nijar, Benin da Najeriya, sannan ya shiga Tekun Atlantika.",
      },
    ],
  },
  sw: {
    ner: texts(
      "Rais Samia Suluhu Hassan alikutana na wafanyabiashara mjini Dodoma siku ya Jumatatu.",
      "Eliud Kipchoge wa Kenya alishinda mbio za Berlin.",
    ),
    ...syntax("Watoto wanacheza nje ya nyumba.", "Wakulima wameanza kuvuna mahindi mwaka huu."),
    nli: [
      { text: "Watoto wanacheza nje ya nyumba.", text_pair: "Watoto wamelala." },
      { text: "Juma alinunua gari jipya jana.", text_pair: "Juma ana gari." },
    ],
    "zero-shot": [
      { text: "Timu yetu ilishinda mechi ya jana kwa mabao matatu.", labels: "michezo, siasa, afya", template: "Habari hii inahusu {}." },
    ],
    qa: [
      {
        question: "Mlima Kilimanjaro una urefu gani?",
        context: "Mlima Kilimanjaro uko kaskazini mwa Tanzania na una urefu wa mita 5,895 juu ya usawa wa bahari.",
      },
    ],
  },
  yo: {
    ner: texts("Wọlé Ṣóyínká gba ẹ̀bùn Nobel ní ọdún 1986.", "Ààrẹ Bọ́lá Tinubu rin ìrìn àjò lọ sí ìlú Lọ́ńdọ̀nù."),
    ...syntax("Àwọn ọmọdé ń ṣeré ní ilé.", "Mo ra ìwé tuntun ní ọjà."),
    nli: [{ text: "Àwọn ọmọdé ń ṣeré ní ilé.", text_pair: "Àwọn ọmọdé ń sùn." }],
    "zero-shot": [
      { text: "Ẹgbẹ́ agbábọ́ọ̀lù wa borí nínú ìdíje àná.", labels: "eré ìdárayá, ìṣèlú, ìlera", template: "Ìròyìn yìí jẹ́ nípa {}." },
    ],
    qa: [{ question: "Ọdún wo ni wọ́n bí Wọlé Ṣóyínká?", context: "Wọ́n bí Wọlé Ṣóyínká ní ìlú Abẹ́òkúta ní ọdún 1934." }],
  },
  ig: {
    ner: texts("Chinua Achebe si Ogidi dị na steeti Anambra.", "Chimamanda Ngozi Adichie bi na Legas na Amerịka."),
    ...syntax("Ụmụaka na-egwu egwu n'ụlọ.", "Ọ zụtara akwụkwọ ọhụrụ n'ahịa."),
    nli: [{ text: "Ụmụaka na-egwu egwu n'ụlọ.", text_pair: "Ụmụaka na-ehi ụra." }],
    "zero-shot": [
      { text: "Otu egwuregwu anyị meriri n'asọmpi ụnyaahụ.", labels: "egwuregwu, ndọrọ ndọrọ ọchịchị, ahụike", template: "Akụkọ a bụ maka {}." },
    ],
    qa: [{ question: "Kedu afọ a mụrụ Chinua Achebe?", context: "A mụrụ Chinua Achebe na afọ 1930 n'obodo Ogidi." }],
  },
  pcm: {
    ner: texts("President Tinubu don travel go Paris.", "Burna Boy don win Grammy for America."),
    ...syntax("Di pikin dem dey play for house.", "I wan go market go buy food."),
  },
  rw: {
    ner: texts("Perezida Paul Kagame yasuye Akarere ka Musanze."),
    ...syntax("Abana barakina mu rugo.", "Umwarimu asoma igitabo."),
  },
};

function syntax(...sentences) {
  return { pos: texts(...sentences), dp: texts(...sentences) };
}
